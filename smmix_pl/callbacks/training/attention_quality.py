"""How concentrated the guide attention is, and how much of it the mixing windows capture."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.checks import in_range
from smmix_pl.logged_steps import log_interval, logs_this_step
from smmix_pl.mixing.regions import least_attended, most_attended, paste, window_mask
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.step_timer import untimed


class AttentionQuality(Callback):
    """Logs how well the model's attention separates regions, on a few training images.

    The images are mixed by max-min regions of half the grid side. The run's own mixer is not used,
    so the curves of different mixers can be compared. Each measurement costs two guide passes.
    Training is unchanged, because every step seeds its own random numbers.

    Logged keys, each a mean over images:
        `attention/entropy`: Entropy of the attention over the N tokens, divided by log N.
        `attention/copied`: Fraction of the source's attention inside the copied window.
        `attention/covered`: Fraction of the target's attention inside the covered window.
        `attention/pasted`: Fraction of the mixed image's attention inside the pasted window.
        `attention/area`: Fraction of the tokens inside a window. Baseline for the three above.
        `attention/windows_overlap`: Fraction of images whose most- and least-attended windows share
            a token.

    Args:
        every_n_steps: Optimizer steps between two measurements, rounded up to a multiple of
            `trainer.log_every_n_steps`. The first one is at the first logged step.
        images: Number of images, at least 2. At most one batch is used.
    """

    def __init__(self, every_n_steps: int = 50, images: int = 16) -> None:
        in_range("AttentionQuality.every_n_steps", every_n_steps, 1)
        in_range("AttentionQuality.images", images, 2)
        self.every_n_steps = every_n_steps
        self.images = images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject strategies that shard the weights."""
        require_unsharded_weights(trainer, self)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        """Measure and log if a measurement is due."""
        if not logs_this_step(trainer):
            return
        logged = log_interval(trainer)
        interval = -(-self.every_n_steps // logged) * logged
        if (trainer.global_step - logged) % interval:
            return
        backbone = cast(SMMixModule, pl_module).backbone
        # not compiled, because a few images would be one more shape
        with untimed(), torch.compiler.set_stance("force_eager"):
            values = attention_quality(backbone, batch[0][: self.images])
        pl_module.log_dict({f"attention/{name}": value for name, value in values.items()})


def attention_quality(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Return the values that `AttentionQuality` logs, for images `(B, 3, H, W)`."""
    grid = backbone.grid
    side = max(1, min(grid) // 2)
    attention = backbone.guide(images).attention
    most, least = most_attended(attention, side), least_attended(attention, side)
    mixed = paste(images, images.flip(0), least, most.flip(0), side, grid)
    covered = window_mask(least, side, grid)
    return {
        "entropy": normalized_entropy(attention).mean(),
        "copied": fraction_inside(attention, window_mask(most, side, grid)).mean(),
        "covered": fraction_inside(attention, covered).mean(),
        "pasted": fraction_inside(backbone.guide(mixed).attention, covered).mean(),
        "area": torch.full((), side**2 / (grid[0] * grid[1]), device=images.device),
        "windows_overlap": ((most - least).abs() < side).all(dim=1).float().mean(),
    }


def normalized_entropy(attention: Tensor) -> Tensor:
    """Return the entropy over tokens of attention `(B, G_h, G_w)`: 1 if uniform, 0 if one token."""
    fraction = attention.flatten(1) / attention.sum(dim=(1, 2))[:, None]
    entropy = -torch.special.xlogy(fraction, fraction).sum(dim=1)
    return entropy / torch.tensor(float(fraction.shape[1])).log()


def fraction_inside(attention: Tensor, mask: Tensor) -> Tensor:
    """Return the fraction `(B,)` of attention `(B, G_h, G_w)` inside a mask `(B, N)`."""
    attention = attention.flatten(1)
    return (attention * mask).sum(dim=1) / attention.sum(dim=1)
