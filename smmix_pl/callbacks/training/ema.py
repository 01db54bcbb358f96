"""An exponential moving average of the weights, validated, tested and saved in their place."""

import warnings
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from smmix_pl.callbacks.evaluation.base import on_device
from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.checks import in_range
from smmix_pl.metrics import ReliabilityBins
from smmix_pl.module import SMMixModule


class EMA(WeightAveraging):
    """Lightning's WeightAveraging by an exponential average, which also survives a test after fit.

    A checkpoint's ``state_dict`` is the average; the raw weights beside it are for training alone.
    Lightning's callback, once it has trained, loads the raw weights for a test in the same process,
    and validates its own last average instead of the checkpoint's.

    While ``val/top1`` and so on are the average's, ``val_weights/top1``, ``val_weights/loss`` and
    ``val_weights/ece`` are those of the raw weights, at the price of a second validation pass.

    Args:
        decay: Share of the average that stays at each step; DeiT's is 0.99996.
        validate_weights: Validate the raw weights as well.
        as_guide: Let the average motivate SMMix, and any mixer that reads unmixed images, in place
            of the weights under training (not in the paper).
    """

    def __init__(
        self, decay: float = 0.99996, validate_weights: bool = True, as_guide: bool = False
    ) -> None:
        in_range("EMA's decay", decay, 0, 1, hint="DeiT's is 0.99996")
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.validate_weights = validate_weights
        self.as_guide = as_guide

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights, where they are whole."""
        require_unsharded_weights(trainer, self)
        with warnings.catch_warnings():
            # Of weights that are sharded, which do not come this far
            warnings.filterwarnings("ignore", ".*doesn't support sharding")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lend the average to the mixer."""
        if self.as_guide:
            assert self._average_model is not None
            average = cast(SMMixModule, self._average_model.module)
            cast(SMMixModule, pl_module).set_guide_model(average.backbone)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the weights' place for good."""
        cast(SMMixModule, pl_module).set_guide_model(None)
        super().on_train_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with both weights in fit; elsewhere ``state_dict`` is loaded already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In fit, put the average in the weights' place."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)
            model = cast(SMMixModule, pl_module)
            self._loss, self._ece = (
                on_device(MeanMetric(), model),
                on_device(ReliabilityBins(), model),
            )
            self._accuracy = model.val_accuracy.clone(prefix="val_weights/")
            self._accuracy.reset()

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """In fit, see what the raw weights make of the batch."""
        if not self._both(trainer):
            return
        assert self._average_model is not None
        images, classes = batch
        raw = self._average_model.module.eval()  # the two have changed places
        with trainer.precision_plugin.forward_context():
            logits = raw(images)
        self._accuracy.update(logits, classes)
        self._ece.update(logits, classes)
        self._loss.update(F.cross_entropy(logits.float(), classes), weight=len(images))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In fit, put the weights back."""
        if self._both(trainer):
            loss, ece = self._loss.compute(), self._ece.compute().ece
            pl_module.log_dict(self._accuracy.compute(), sync_dist=False)  # summed over ranks
            pl_module.log("val_weights/loss", loss, sync_dist=False)
            pl_module.log("val_weights/ece", ece.float(), sync_dist=False)
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def _both(self, trainer: Trainer) -> bool:
        return self.validate_weights and trainer.state.fn == TrainerFn.FITTING
