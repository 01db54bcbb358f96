"""Gradual unfreezing (Howard and Ruder, ULMFiT, 2018)."""

from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import Parameter
from torch.optim import Optimizer

from smmix_pl.checks import positive
from smmix_pl.errors import InputError
from smmix_pl.module import SMMixModule


class GradualUnfreezing(Callback):
    """Trains the heads first, and then one layer more from time to time, from the top.

    Layers are timm's groups, as for `optim.layer_decay`. The gradient of a frozen layer is
    discarded before each optimizer step, so that this layer has no update and no weight decay. The
    epoch decides what is frozen: a resumed run continues exactly, and every strategy works.
    Lightning's `BaseFinetuning` adds parameter groups in mid-run, which the schedule and the check
    of a resumed optimizer do not know.

    Args:
        epochs: Epochs from the start of one layer to that of the next. A fraction starts several
            layers in an epoch.
    """

    def __init__(self, epochs: float = 1.0) -> None:
        self.epochs = positive("GradualUnfreezing.epochs", epochs, "1 is usual")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the layer of each weight.

        Raises:
            InputError: The run ends before all layers train.
        """
        backbone = cast(SMMixModule, pl_module).backbone
        layer = backbone.group_matcher()
        named = list(backbone.named_parameters())
        last = max(layer(name) for name, _ in named)
        self.start = [(weight, (last - layer(name)) * self.epochs) for name, weight in named]
        complete, end = last * self.epochs, trainer.max_epochs
        if stage == "fit" and end is not None and 0 < end <= complete:
            raise InputError(
                f"GradualUnfreezing.epochs={self.epochs}: the last of {last + 1} layers would "
                f"start after {complete:g} epochs, but trainer.max_epochs={end}. Lower it."
            )

    def frozen(self, epoch: int) -> list[Parameter]:
        """Return the weights that do not train in an epoch."""
        return [weight for weight, start in self.start if epoch < start]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Discard the gradients of frozen layers."""
        for weight in self.frozen(trainer.current_epoch):
            weight.grad = None
