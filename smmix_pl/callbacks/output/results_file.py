"""results.json and results.csv at the end of a test: every number with how it came about."""

import hashlib
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from smmix_pl.callbacks.evaluation.base import finished_evaluations
from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult, as_json, write_results
from smmix_pl.seeding import run_seed

PACKAGES = ("smmix-pl", "torch", "torchvision", "lightning", "timm", "torchmetrics", "numpy")


class ResultsFile(Callback):
    """Writes what a test found into the run folder, and as a table to W&B.

    Each metric stands with its protocol and its number of images; the run with its checkpoint,
    seed, git commit, config hash and versions. ``python -m smmix_pl.reporting.comparison RUN RUN`` reads it.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write; rank 0 only."""
        folder = run_folder(trainer) if trainer.is_global_zero else None
        if folder is None:
            return
        run = description(trainer, cast(SMMixModule, pl_module), folder / "config.yaml")
        reports = [plain_report(trainer), *evaluation_reports(trainer)]
        results = as_json(run, reports)
        write_results(folder, results)
        rows = [[name, found["value"]] for name, found in results["metrics"].items()]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("test/results", columns=["metric", "value"], data=rows)


def evaluation_reports(trainer: Trainer) -> list[EvalResult]:
    """What the evaluations among a trainer's callbacks found, in their order."""
    return [cast(EvalResult, one.result) for one in finished_evaluations(trainer)]


def plain_report(trainer: Trainer) -> EvalResult:
    """What the test logged besides: the module's own loss and accuracies, on plain images."""
    reports = evaluation_reports(trainer)
    known = {name for report in reports for name in report.metrics}
    logged = {
        key.removeprefix("test/"): float(value)
        for key, value in trainer.callback_metrics.items()
        if key.startswith("test/")
    }
    scalars = {name: value for name, value in logged.items() if name not in known}
    images = reports[0].images if reports else test_images(trainer)
    return EvalResult({"images": "plain"}, images, scalars)


def test_images(trainer: Trainer) -> int:
    """How many images the test loaders hold."""
    loaders: Any = trainer.test_dataloaders
    every = loaders if isinstance(loaders, list) else [loaders]
    return sum(len(loader.dataset) for loader in every)


def description(trainer: Trainer, model: SMMixModule, config: Path) -> dict[str, Any]:
    """What is run, and with what; ``config`` is where the command line saves its own."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "model": model.hparams["backbone"],
        "backbone_args": dict(model.hparams.get("backbone_args") or {}),
        "mixer": model.provenance.get("mixer", type(model.mixer).__name__),
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
    """A hash of settings that no config file holds, as in a test from Python."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def git_commit() -> str | None:
    """The checkout's commit, with ``+`` if files differ from it; null outside a checkout."""
    file = Path(__file__)
    try:
        # an installed package may lie in a folder of somebody else's checkout
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return found.stdout.strip()
