"""Progress bar that rarely waits for the device."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

SHOWN = ("train/loss", "lr", "images_per_second")


class ThrottledProgressBar(RichProgressBar):
    """Lightning's RichProgressBar, which reads metrics from the device at few steps only.

    Reading a loss makes the host wait for the device. Lightning's bar reads it at every step,
    whatever its refresh rate is.

    Args:
        refresh_rate: Steps between two readings of loss, learning rate, and images per second.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate, theme=RichProgressBarTheme(metrics_format=".4g"))
        self._shown: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics shown in the progress bar."""
        if trainer.training and trainer.fit_loop.batch_idx % self.refresh_rate == 0:
            metrics = trainer.callback_metrics
            self._shown = {name: float(metrics[name]) for name in SHOWN if name in metrics}
        return self._shown | super().get_metrics(trainer, pl_module)
