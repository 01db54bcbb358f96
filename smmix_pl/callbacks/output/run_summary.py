"""What a run is about to do, printed at its start, and where its best checkpoint is, at its end."""

import os
from collections import Counter
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from smmix_pl.base_module import BaseModule
from smmix_pl.callbacks.evaluation.base import Evaluation
from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.data.data_label import data_label
from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.trainer_datamodule import base_data
from smmix_pl.reporting.metric_names import metric_value
from smmix_pl.runs.results import UNKNOWN


class RunSummary(Callback):
    """Prints what is trained or tested, and after training the best checkpoint."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the header of a training run."""
        if trainer.is_global_zero:
            for name, value in training_header(trainer, cast(BaseModule, pl_module)).items():
                print(f"{name:<14} {value}", flush=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the best metric, its checkpoint, and the command that evaluates it."""
        best = best_checkpoint(trainer)
        folder = run_folder(trainer)
        if not trainer.is_global_zero or folder is None:
            return
        if best is not None and best.best_model_path:
            if best.monitor is not None and best.best_model_score is not None:
                score = metric_value(best.monitor, float(best.best_model_score))
                print(f"Best {best.monitor}: {score}, in {best.best_model_path}")
            config = folder / "config.yaml"
            if config.is_file():
                print(f"Test it: smmix test --config {config} --ckpt_path {best.best_model_path}")

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the amount of work before the first batch, when all evaluations are set up."""
        data = base_data(trainer)
        if batch_idx == 0 and trainer.is_global_zero and data is not None:
            passes: Counter[str] = Counter()
            for one in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(one, Evaluation) and one.passes:
                    passes[type(one).__name__] += one.passes
            parts = "".join(f", {count} of {name}" for name, count in passes.items())
            print(
                f"Testing on {data_label(type(data), data.root)}: {data.counts['test']:,} images, "
                f"{counted(1 + passes.total(), 'forward pass')} per image{parts}",
                flush=True,
            )


def best_checkpoint(trainer: Trainer) -> ModelCheckpoint | None:
    """Return the callback that keeps the best checkpoint: the first that monitors a metric.

    Without one, it is the first that saves checkpoints. Lightning's own choice is always the first.
    """
    found = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    monitoring = [one for one in found if one.monitor is not None]
    return next(iter([*monitoring, *found]), None)


def training_header(trainer: Trainer, model: BaseModule) -> dict[str, str]:
    """Return what is trained, on what, and how, by subject."""
    accumulated = trainer.accumulate_grad_batches
    weights = sum(weight.numel() for weight in model.backbone.parameters())
    height, width = model.hparams["image_size"]
    rows, columns = model.backbone.grid
    header = {
        "Model": f"{model.hparams['backbone']}, {weights:,} parameters, {rows} x {columns} tokens",
        "Task": model.task,
    }
    if model.method != UNKNOWN:
        header["Mixer"] = model.method
    data = base_data(trainer)
    if data is not None:
        counts = ", ".join(f"{count:,} {split}" for split, count in data.counts.items())
        header["Data"] = f"{data_label(type(data), data.root)}, {counts} images"
    header |= {
        "Images": f"{height} x {width} pixels, {model.num_classes} classes",
        "Batch": f"{model.global_batch} images: {model.batch_size} per device on "
        + counted(trainer.world_size, "device")
        + (f", {accumulated} batches accumulated" if accumulated > 1 else ""),
        "Learning rate": f"{model.optim.effective_lr(model.global_batch):.4g}",
        "Precision": str(trainer.precision),
    }
    folder = run_folder(trainer)
    if folder is not None:
        header["Run folder"] = str(folder)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and logger.experiment.offline:
            files = Path(logger.experiment.dir).parent
            header["W&B"] = f"offline; upload with: wandb sync {os.path.relpath(files)}"
    return header
