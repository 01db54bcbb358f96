"""What cannot run where a strategy shares the weights out over devices."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from smmix_pl.errors import InputError


def require_unsharded_weights(trainer: Trainer, callback: Callback) -> None:
    """Refuse a callback that reads or copies weights outside of the module's own steps.

    Raises:
        InputError: No device has whole weights then.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy):
        raise InputError(
            f"{type(callback).__name__} needs whole weights, and trainer.strategy is "
            "ModelParallelStrategy; leave it out of trainer.callbacks, or set the strategy to ddp"
        )
