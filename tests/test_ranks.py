"""Two processes on gloo, through the command line: one log, one checkpoint, the same numbers."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import run_cli

TWO_RANKS = ["--trainer.devices=2", "--trainer.strategy=ddp"]


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def evaluated(rows: list[dict[str, str]]) -> dict[str, float]:
    [row] = [row for row in rows if row.get("test/top1")]
    return {key: float(value) for key, value in row.items() if key.startswith("test/")}


@pytest.fixture(scope="module")
def run_of_two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    result = run_cli(
        *("fit", "--config", "digits.yaml", "--trainer.max_epochs=1", *TWO_RANKS),
        *("--trainer.limit_train_batches=6", "--trainer.log_every_n_steps=1"),
        *("--test_after_fit=false", "--trainer.check_val_every_n_epoch=1"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return folder, result


def test_two_ranks_leave_one_log_and_one_checkpoint(run_of_two_ranks):
    folder, result = run_of_two_ranks
    assert [path.name for path in (folder / "runs/digits").iterdir()] == ["version_0"]
    run = folder / "runs/digits/version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    steps = [int(row["step"]) for row in metrics(run) if row["train/loss"]]
    assert steps == list(range(6))
    assert "learning rate 0.002 at a global batch of 64" in result.stderr


def test_two_ranks_evaluate_every_image_once(run_of_two_ranks):
    """360 test images are neither a multiple of the batch nor of the ranks' batches."""
    folder, _ = run_of_two_ranks
    words = ["test", "--config", "digits.yaml", "--data.batch_size=50"]
    words += ["--ckpt_path", "runs/digits/version_0/checkpoints/last.ckpt"]
    numbers = []
    for flags in ([], TWO_RANKS):
        result = run_cli(*words, *flags, cwd=folder)
        assert result.returncode == 0, result.stderr[-2000:]
        newest = max((folder / "runs/digits").iterdir(), key=lambda path: path.name)
        numbers.append(evaluated(metrics(newest)))
    one, two = numbers
    assert one.keys() == two.keys() >= {"test/top1", "test/top5", "test/ece", "test/loss"}
    assert "test/occlusion_50" in one
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-6), key
