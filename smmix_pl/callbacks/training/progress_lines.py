"""Progress in a log file, where a bar cannot move."""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from smmix_pl.data.io.progress import MinuteClock, duration
from smmix_pl.reporting.metric_names import metric_value


class ProgressLines(ProgressBar):
    """Prints one line per training epoch, and one per minute of an evaluation.

    For output that is redirected to a file, where a progress bar cannot move.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._validated = False

    def disable(self) -> None:
        """Print nothing. Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print lines again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock. A run that resumes at the end of an epoch has no epoch start."""
        self._start, self._first_step = time.monotonic(), trainer.global_step
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the mean loss, which is kept on the device."""
        self._loss, self._batches = torch.zeros((), device=pl_module.device), 0
        self._validated = False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the loss of a batch."""
        if self._enabled and outputs is not None:
            # Lightning has divided it by the number of accumulated batches
            self._loss += outputs["loss"].detach() * trainer.accumulate_grad_batches
            self._batches += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the metrics of the validation are those of this epoch."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch."""
        if not self._enabled:
            return
        total = int(trainer.estimated_stepping_batches)
        done = trainer.global_step - self._first_step
        spent = time.monotonic() - self._start
        left = duration(spent / max(1, done) * (total - trainer.global_step))
        epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        values = [f"loss {float(self._loss) / self._batches:.4f}"] if self._batches else []
        top1 = trainer.callback_metrics.get("val/top1")
        if self._validated and top1 is not None:
            values.append(f"val/top1 {metric_value('val/top1', float(top1))}")
        text = ", ".join([*values, f"{left} left"])
        print(f"epoch {trainer.current_epoch + 1}{epochs}: {text}", flush=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock = MinuteClock()

    on_predict_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print a line per minute."""
        totals = trainer.num_test_batches if trainer.testing else trainer.num_predict_batches
        done, total = batch_idx + 1, totals[dataloader_idx]
        left = self._clock.left(done, total)
        if self._enabled and left is not None:
            stage = "test" if trainer.testing else "predict"
            print(f"{stage}: {done}/{total} batches, {left} left", flush=True)

    on_predict_batch_end = on_test_batch_end
