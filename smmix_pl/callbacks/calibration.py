"""Expected calibration error during validation and test, with a reliability diagram."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl.callbacks.figures import save_figure
from smmix_pl.errors import InputError
from smmix_pl.metrics import ReliabilityBins
from smmix_pl.plots import reliability_diagram


class Calibration(Callback):
    """Logs ``val/ece`` and ``test/ece``, in [0, 1]; draws the test set's reliability diagram.

    Args:
        n_bins: Equal-width bins of the confidence. 15 is the usual count; another count stands in
            the metric's name (``test/ece_10``), because numbers of different counts do not compare.
    """

    def __init__(self, n_bins: int = 15) -> None:
        if n_bins < 1:
            raise InputError(f"Calibration's n_bins is {n_bins}; use at least 1 (15 is usual)")
        self.n_bins = n_bins

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.bins = ReliabilityBins(self.n_bins).to(pl_module.device)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.bins = ReliabilityBins(self.n_bins).to(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        self.bins.update(outputs["logits"], outputs["classes"])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        self.bins.update(outputs["logits"], outputs["classes"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ECE."""
        self._log(pl_module, "val", self.bins.compute().ece)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ECE and draw."""
        reliability = self.bins.compute()
        self._log(pl_module, "test", reliability.ece)
        save_figure(trainer, "test/reliability", reliability_diagram(reliability, "Calibration"))

    def _log(self, pl_module: LightningModule, stage: str, ece: Tensor) -> None:
        suffix = "" if self.n_bins == 15 else f"_{self.n_bins}"
        # already summed over the ranks
        pl_module.log(f"{stage}/ece{suffix}", ece.float(), sync_dist=False, rank_zero_only=False)
