"""A real offline W&B run, read back with W&B's own reader."""

import json
from pathlib import Path

import pytest
from conftest import run_cli
from wandb.proto.wandb_internal_pb2 import Record
from wandb_file import read_records


def records(run: Path) -> list[Record]:
    [path] = run.glob("*.wandb")
    return list(read_records(path))


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory):
    """A short digits run of somebody without a W&B account."""
    folder = tmp_path_factory.mktemp("wandb")
    nobody = {"WANDB_MODE": None, "HOME": str(folder), "NETRC": str(folder / "none")}
    result = run_cli(
        *("fit", "--config", "digits.yaml", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1"),
        "--trainer.check_val_every_n_epoch=1",
        cwd=folder,
        env=nobody,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    [run] = (folder / "runs" / "wandb").glob("offline-run-*")
    return run


def history(run: Path) -> dict[str, list[int]]:
    """Steps at which each key was logged."""
    steps: dict[str, list[int]] = {}
    for record in records(run):
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            step = json.loads(items["trainer/global_step"].value_json)
            for key in items:
                steps.setdefault(key, []).append(step)
    return steps


def test_offline_run_holds_the_metrics_once_a_step(offline_run):
    steps = history(offline_run)
    for key in ("train/loss", "train/loss_classification", "train/lam", "lr", "images_per_second"):
        assert steps[key] == [0, 1, 2, 3], key
    for key in ("val/top1", "val/ece", "val/loss"):
        assert steps[key] == [3], key
    for key in ("test/top1", "test/ece", "test/occlusion_50"):
        assert steps[key] == [4], key


def test_offline_run_holds_config_and_pictures(offline_run):
    updates = [update for record in records(offline_run) for update in record.config.update]
    keys = {update.key for update in updates}
    assert {"model", "data", "trainer", "effective_lr", "global_batch"} <= keys
    pictures = {path.stem.rsplit("_", 2)[0] for path in offline_run.rglob("*.png")}
    assert {"mixing", "reliability", "occlusion"} <= pictures
