"""Check for callbacks that cannot run when the weights are sharded."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from smmix_pl.errors import InputError


def require_unsharded_weights(trainer: Trainer, callback: Callback) -> None:
    """Reject a callback that reads or copies weights outside the module's own steps.

    Raises:
        InputError: The strategy shards the weights, so no device has all of them.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy):
        raise InputError(
            f"trainer.callbacks: {type(callback).__name__} does not support sharded weights "
            "(ModelParallelStrategy). Remove it or set trainer.strategy=ddp."
        )
