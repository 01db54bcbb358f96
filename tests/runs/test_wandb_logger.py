"""A real offline W&B run, read back from its file."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from helpers import processes
from helpers.wandb_file import read_records
from wandb.proto.wandb_internal_pb2 import Record

from smmix_pl.reporting.metric_names import metric_spec
from smmix_pl.reporting.metric_specs import METRICS
from smmix_pl.reporting.panels import PICTURES, TABLES

OCCASIONAL = (
    *("train/ema_decay", "train/skipped_steps", "train/loss_distillation"),
    "train/loss_uncertainty",
)
KEYS = {
    key
    for spec in METRICS
    for key in (spec.panel_keys if "{" in spec.key else spec.keys)
    if not spec.source and key not in OCCASIONAL
}
"""What every run of a recipe logs."""
FIGURES = {picture.key for picture in PICTURES if not picture.source}
STEPS = {
    "val": ([3], [7]),
    "val_weights": ([3], [7]),
    "test": ([4], [8]),
    "attention": ([0], []),
}
"""Logged steps of both parts, for keys that are not logged at every step."""
SMALL = "--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}"
RECIPE = [
    *("fit", "--config", "digits.yaml", SMALL, "--model.mixer.switch_prob=1"),
    *("--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1"),
    *("--trainer.check_val_every_n_epoch=1", "--test_after_fit=true"),
    *("--trainer.limit_val_batches=1", "--trainer.limit_test_batches=2"),
]


def records(run: Path) -> list[Record]:
    [path] = run.glob("*.wandb")
    return list(read_records(path))


def logged_out(folder: Path) -> dict[str, str | None]:
    """Return an environment without a W&B login and without a network."""
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    return {"WANDB_MODE": None, "HOME": str(folder), "NETRC": str(folder / "none"), **offline}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a digits run of one epoch that was resumed for a second one."""
    folder = tmp_path_factory.mktemp("wandb")
    for epochs, more in ((1, ()), (2, ("--ckpt_path=last",))):
        result = processes.run(
            *RECIPE, f"--trainer.max_epochs={epochs}", *more, cwd=folder, env=logged_out(folder)
        )
        assert result.returncode == 0, result.stderr[-2000:]
        (folder / f"output_{epochs}.txt").write_text(result.stdout + result.stderr)
    return folder


@pytest.fixture(scope="module")
def runs(folder) -> list[Path]:
    """The W&B folders of both parts of the run."""
    return sorted((folder / "runs/wandb").glob("offline-run-*"))


def history(run: Path) -> dict[str, list[int]]:
    """Return the steps at which each key was logged."""
    steps: dict[str, list[int]] = {}
    for record in records(run):
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            step = json.loads(items["trainer/global_step"].value_json)
            for key in items:
                steps.setdefault(key, []).append(step)
    return steps


def test_every_documented_key_is_logged_once_per_step(runs):
    first, second = map(history, runs)
    assert not (KEYS | FIGURES | TABLES.keys()) - first.keys()
    for key in KEYS:
        expected = STEPS.get(key.split("/")[0], ([0, 1, 2, 3], [4, 5, 6, 7]))
        assert (first[key], second.get(key, [])) == expected, key
    for key in FIGURES:
        assert (first[key], second[key]) == STEPS["val" if key == "val/mixing" else "test"], key
    for key in TABLES:
        assert len(first[key]) == 1, key


def test_every_logged_key_is_documented(runs):
    for key in history(runs[0]):
        if not key.startswith(("_", "trainer/", "epoch")):
            assert key in FIGURES or key in TABLES or metric_spec(key) is not None, key


def test_a_resumed_run_continues_the_wandb_run(folder, runs):
    ids = {record.run.run_id for run in runs for record in records(run) if record.HasField("run")}
    assert len(runs) == 2
    assert len(ids) == 1
    assert [path.name for path in (folder / "runs/digits").glob("*/*")] == ["version_0"]


def names(run: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return name, group, and tags of a run."""
    [found] = {
        (record.run.display_name, record.run.run_group, tuple(record.run.tags))
        for record in records(run)
        if record.HasField("run") and record.run.display_name
    }
    return found


def test_name_group_and_tags_describe_the_run(runs):
    name, group, tags = names(runs[0])
    assert tags == ("vit_tiny_patch16_224", "SMMix", "Digits")
    assert group.startswith("-".join((*tags, "switch_prob=1", "optim.lr=0.002")))
    assert name == f"{group}-seed0"


@pytest.mark.slow
def test_a_test_is_named_after_its_training(folder, runs, tmp_path):
    [checkpoint] = (folder / "runs/digits").glob("*/version_0/checkpoints/last.ckpt")
    words = ["test", "--config", "digits.yaml", SMALL, "--ckpt_path", checkpoint]
    words += ["--config", "with/debug.yaml", "--seed_everything=7"]
    result = processes.run(*words, cwd=tmp_path, env=logged_out(tmp_path))
    assert result.returncode == 0, result.stderr[-2000:]
    [tested] = (tmp_path / "runs/wandb").glob("offline-run-*")
    assert names(tested) == names(runs[1])


def test_the_config_and_the_description_of_the_run_are_logged(runs):
    config = {
        update.key: json.loads(update.value_json)
        for record in records(runs[0])
        for update in record.config.update
    }
    assert {"model", "data", "trainer", "effective_lr", "global_batch"} <= config.keys()
    run = config["run"]
    assert run["images"] == {"train": 1295, "val": 143}
    assert run["parameters"] > 1000
    assert run["versions"].keys() >= {"torch", "timm", "lightning"}
    assert "git_commit" in run


def test_all_figures_are_logged_and_small(runs):
    files = [path for path in runs[0].rglob("*") if path.suffix in (".png", ".jpg")]
    pictures = {path.stem.rsplit("_", 2)[0]: path for path in files}
    assert {key.split("/")[1] for key in FIGURES} <= pictures.keys()
    assert pictures["mixing"].suffix == ".jpg"
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_no_login_is_requested_and_no_warning_is_repeated(folder):
    output = (folder / "output_1.txt").read_text()
    assert "Traceback" not in output
    for line in {line for line in output.splitlines() if "wandb" in line and "WARN" in line}:
        assert output.count(line) == 1, line
    assert "(1) Create a W&B account" not in output


@pytest.mark.slow
def test_a_killed_run_keeps_what_was_logged_seconds_before(tmp_path):
    words = [*RECIPE, "--trainer.max_epochs=1000", "--trainer.enable_progress_bar=false"]
    run = processes.start(words, tmp_path, logged_out(tmp_path))
    runs = tmp_path / "runs/digits"
    metrics = runs / "vit_tiny_patch16_224-smmix-switch_prob=1" / "version_0" / "metrics.csv"
    while run.is_alive() and (not metrics.is_file() or metrics.read_text().count("\n") < 9):
        time.sleep(0.1)
    kept = metrics.read_text().splitlines()
    time.sleep(3)
    run.kill()
    run.join()
    [offline] = (tmp_path / "runs/wandb").glob("offline-run-*")
    steps = history(offline)["train/loss"]
    assert steps == list(range(len(steps)))
    column = kept[0].split(",").index("step")
    assert len(steps) > max(int(row.split(",")[column]) for row in kept[1:])


@pytest.mark.slow
def test_with_a_malformed_key_the_run_is_logged_offline(tmp_path):
    """Runs in its own process, because W&B caches logins."""
    code = (
        "import warnings; warnings.simplefilter('default')\n"
        "from smmix_pl.runs.wandb_logger import WandbLogger\n"
        "WandbLogger(save_dir='.').experiment.finish()\n"
    )
    environment = logged_out(tmp_path) | {"WANDB_API_KEY": "short"}
    (tmp_path / "offline.py").write_text(code)
    result = processes.run("offline.py", cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stderr.count("UserWarning: W&B login failed") == 1
    assert list((tmp_path / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_a_stopped_run_is_marked_as_preempted_so_that_its_sweep_runs_it_again(tmp_path):
    words = (*RECIPE, "--trainer.max_epochs=500", "--trainer.callbacks=[ModelCheckpoint]")
    process = processes.start(words, tmp_path, logged_out(tmp_path))
    while process.is_alive() and not list(tmp_path.rglob("*.ckpt")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 75, (tmp_path / "log.err").read_text()[-2000:]
    [run] = tmp_path.glob("runs/wandb/offline-run-*")
    kinds = [record.WhichOneof("record_type") for record in records(run)]
    assert "preempting" in kinds
