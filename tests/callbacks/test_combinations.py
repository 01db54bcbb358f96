"""All callbacks at once, with every precision and strategy that the Trainer offers on a CPU."""

import csv
import json

import pytest
import yaml
from helpers import processes

from smmix_pl import callbacks
from smmix_pl.callbacks.training.ema import FULL_PRECISION

PRECISIONS = ["32-true", "bf16-mixed", "bf16-true", "16-true", "64-true"]
COMBINATIONS = [
    *((strategy, precision) for strategy in ("auto", "ddp") for precision in PRECISIONS),
    *((strategy, "32-true") for strategy in ("ddp_spawn", "ddp_fork")),
    ("ddp_spawn", "bf16-mixed"),
    ("ddp_fork", "64-true"),
]
BUILT_IN = {"Evaluation", "NonFiniteGuard", "Preemption", "ProgressLines"}
"""A base class, and what every run has, or has unless it names another progress bar."""
OF_OTHER_DATA = {
    *("CorruptionError", "OutlierPrecision", "GuideQuality", "Localization"),
    *("DetectionPictures", "SegmentationPictures"),
}
SETTINGS = {"AutoAttack": {"eps": [64]}, "GradualUnfreezing": {"epochs": 0.25}}
OF_LIGHTNING = [
    {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}},
    {"class_path": "LearningRateMonitor"},
    {"class_path": "ModelSummary"},
]
RECIPE = {
    "model": {
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
    },
    "data": {
        "class_path": "smmix_pl.Digits",
        "init_args": {"image_size": 16, "batch_size": 8, "num_workers": 0, "held_out": 0.1},
    },
    "test_after_fit": True,
    "name": "run",
}
LIMITS = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "precision"), COMBINATIONS)
def test_all_callbacks_run_with_strategy_and_precision(tmp_path, strategy, precision):
    names = sorted({*callbacks.__all__} - BUILT_IN - OF_OTHER_DATA)
    if precision not in FULL_PRECISION:
        names.remove("EMA")  # which is rejected
    added = [
        {"class_path": f"smmix_pl.callbacks.{name}", "init_args": SETTINGS.get(name, {})}
        for name in names
    ]
    trainer = {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1} | LIMITS
    trainer |= {"precision": precision, "strategy": strategy, "callbacks+": added + OF_LIGHTNING}
    trainer |= {"devices": 1 if strategy == "auto" else 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"trainer": trainer}))
    result = processes.run("fit", "--config", "recipe.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-1500:]
    run = tmp_path / "runs/run/version_0"
    assert json.loads((run / "results.json").read_text())["run"]["precision"] == precision
    assert (run / "checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_sharded_weights_are_trained_and_resumed(tmp_path):
    words = ["fit", "--config", "digits.yaml", "--config", "with/debug.yaml", "--name=run"]
    words += ["--config", "with/fsdp.yaml", "--trainer.devices=2", "--trainer.log_every_n_steps=1"]
    for more in (["--test_after_fit=false"], ["--trainer.max_epochs=2", "--ckpt_path=last"]):
        result = processes.run(*words, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr[-1500:]
    run = tmp_path / "runs/run/version_0"
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(8))
    assert (run / "results.json").is_file()
