"""The progress bar."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

SHOWN = ("train/loss", "lr", "images_per_second")


class ThrottledProgressBar(RichProgressBar):
    """Lightning's bar, which reads numbers back from the device at few steps only.

    To show a loss is to wait for the device. Lightning's own bar does so at every step, whatever
    its refresh rate.

    Args:
        refresh_rate: Steps from one look at loss, learning rate and images per second to the next.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate, theme=RichProgressBarTheme(metrics_format=".4g"))
        self._shown: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands beside the bar."""
        if trainer.training and trainer.fit_loop.batch_idx % self.refresh_rate == 0:
            found = trainer.callback_metrics
            self._shown = {name: float(found[name]) for name in SHOWN if name in found}
        return self._shown | super().get_metrics(trainer, pl_module)
