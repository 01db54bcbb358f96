"""Files results.json and results.csv: every test metric with its protocol."""

import hashlib
import json
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from smmix_pl.base_module import BaseModule
from smmix_pl.callbacks.evaluation.base import finished_evaluations
from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.data.trainer_datamodule import require_base_data
from smmix_pl.runs.results import EvalResult, as_json, write_results
from smmix_pl.seeding import run_seed

PACKAGES = ("smmix-pl", "torch", "torchvision", "lightning", "timm", "torchmetrics", "numpy")


class ResultsFile(Callback):
    """Writes the results of a test to the run folder and, as a table, to W&B.

    Each metric is stored with its protocol and number of images. The run is stored with its
    checkpoint, seed, git commit, config hash, and package versions. `smmix compare` reads the file.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files on rank 0."""
        folder = run_folder(trainer) if trainer.is_global_zero else None
        if folder is None:
            return
        run = description(trainer, cast(BaseModule, pl_module), folder / "config.yaml")
        results = as_json(run, [plain_report(trainer), *evaluation_reports(trainer)])
        write_results(folder, results)
        rows = [[name, metric["value"]] for name, metric in results["metrics"].items()]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("test/results", columns=["metric", "value"], data=rows)


def evaluation_reports(trainer: Trainer) -> list[EvalResult]:
    """Return the results of the trainer's evaluation callbacks, in their order."""
    return [cast(EvalResult, one.result) for one in finished_evaluations(trainer)]


def plain_report(trainer: Trainer) -> EvalResult:
    """Return the module's own test metrics, measured on unmodified images."""
    reports = evaluation_reports(trainer)
    known = {name for report in reports for name in report.metrics}
    logged = {
        key.removeprefix("test/"): float(value)
        for key, value in trainer.callback_metrics.items()
        if key.startswith("test/")
    }
    scalars = {name: value for name, value in logged.items() if name not in known}
    # Evaluations of all images that belong to a class have counted those that were not skipped
    evaluations = finished_evaluations(trainer)
    complete = [one for one in evaluations if one.places is None and not one.includes_outliers]
    images = cast(EvalResult, complete[0].result).images if complete else test_images(trainer)
    return EvalResult({"images": "plain"}, images, scalars)


def test_images(trainer: Trainer) -> int:
    """Return the number of images in the test dataloaders."""
    loaders: Any = trainer.test_dataloaders
    loaders = loaders if isinstance(loaders, list) else [loaders]
    return sum(len(loader.dataset) for loader in loaders)


def description(trainer: Trainer, model: BaseModule, config: Path) -> dict[str, Any]:
    """Return what is run and with which settings and versions.

    Args:
        trainer: Trainer of the run.
        model: Model that is trained or evaluated.
        config: Path of the config saved by the command line. If there is none, the settings of the
            model are hashed instead.
    """
    data = require_base_data(trainer)
    return {
        "task": model.task,
        "model": model.hparams["backbone"],
        "backbone_args": dict(model.hparams.get("backbone_args") or {}),
        "mixer": model.method,
        "data": type(data).__name__,
        "image_size": list(data.image_size),
        "num_classes": model.num_classes,
        "images": data.counts,
        "parameters": sum(weight.numel() for weight in model.backbone.parameters()),
        "tokens": list(model.backbone.grid),
        "checkpoint": str(trainer.ckpt_path or ""),
        "seed": model.provenance.get("seed", run_seed()),
        "precision": str(trainer.precision),
        "ranks": trainer.world_size,
        "git_commit": git_commit(),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest()
        if config.is_file()
        else sha256_of(model.hparams),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
    }


def sha256_of(settings: Any) -> str:
    """Return a hash of settings that are not in a config file."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout, with `+` for local changes, or None without a checkout."""
    file = Path(__file__)
    try:
        # an installed package may be inside the checkout of another project
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return result.stdout.strip()
