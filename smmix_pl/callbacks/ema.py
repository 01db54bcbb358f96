"""An exponential moving average of the weights, validated, tested and saved in their place."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class EMA(EMAWeightAveraging):
    """Lightning's EMAWeightAveraging, whose average also survives a test after fit.

    A checkpoint's ``state_dict`` is the average; the raw weights beside it are for training alone.
    Lightning's callback, once it has trained, loads the raw weights for a test in the same process,
    and validates its own last average instead of the checkpoint's.

    Args:
        decay: Share of the average that stays at each step; DeiT's is 0.99996.
    """

    def __init__(self, decay: float = 0.99996) -> None:
        super().__init__(decay=decay)

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

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In fit, put the weights back."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)
