"""Progress bar that rarely waits for the device."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

SHOWN = ("train/loss", "lr", "images_per_second")


class ThrottledProgressBar(RichProgressBar):
    """Lightning's RichProgressBar, which reads metrics from the device at few steps only.

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
            self._shown = {name: float(metrics[name]) for name in SHOWN if name in metrics}
        return self._shown | super().get_metrics(trainer, pl_module)
