"""Progress bar that rarely waits for the device."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

SHOWN = {"train/loss": "loss", "val/top1": "top-1"}
BAR_WIDTH = 8
"""Characters, so that epoch, batches, times, and metrics fit into 80 columns beside it."""


class ThrottledProgressBar(RichProgressBar):
    """Lightning's RichProgressBar in 80 columns, which reads metrics at few steps only.

    Reading a loss makes the host wait for the device. Lightning's bar reads it at every step, and
    draws `refresh_rate` times per second. This one draws once per second.

    Args:
        refresh_rate: Training steps between two updates of the bar; 0 turns it off.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        drawings_per_second = min(refresh_rate, 1)
        super().__init__(drawings_per_second, theme=RichProgressBarTheme(metrics_format=".4g"))
        self.update_every = refresh_rate
        self._shown: dict[str, int | str | float | dict[str, float]] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar if that is due, and after the last step of an epoch."""
        done = batch_idx + 1
        if self.is_enabled and (done % self.update_every == 0 or done == self.total_train_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics shown in the progress bar."""
        if trainer.training:
            metrics = trainer.callback_metrics
            self._shown = {
                name: float(metrics[key]) for key, name in SHOWN.items() if key in metrics
            }
        return self._shown

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Return Lightning's columns with a short bar, without the speed."""
        description, bar, batches, times, _ = super().configure_columns(trainer)
        bar.bar_width = BAR_WIDTH
        return [description, bar, batches, times]
