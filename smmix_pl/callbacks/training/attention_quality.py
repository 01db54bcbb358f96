"""Where the model looks while it is trained, because SMMix lives on it."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl.callbacks.output.figure_saver import current_step
from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.errors import InputError
from smmix_pl.mixing.regions import least_attended, most_attended, paste, window_mask
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.step_timer import untimed


class AttentionQuality(Callback):
    """Logs how well the model's attention tells regions apart, on a few training images.

    Every so many steps it mixes some images of the batch by max-min regions of half the grid's
    side, whatever the run's own mixer is, so that curves of different mixers compare:

    - ``attention/entropy``: of the attention over the tokens, as a share of its maximum, log N.
    - ``attention/copied``: share of the source's attention in the window that is copied.
    - ``attention/covered``: share of the target's attention in the window that is pasted over.
    - ``attention/pasted``: share of the mixed image's attention in the pasted window.
    - ``attention/area``: share of the tokens in a window, which blind attention would give each.
    - ``attention/windows_overlap``: how often the most and the least attended window of one image
      share a token.

    It costs two forward passes of ``images`` images every ``every_n_steps`` steps, in eval mode,
    and draws no random numbers: training goes on as without it.

    Args:
        every_n_steps: Training batches from one measurement to the next.
        images: How many, at most the batch.
    """

    def __init__(self, every_n_steps: int = 50, images: int = 16) -> None:
        if every_n_steps < 1 or images < 2:
            raise InputError(
                f"AttentionQuality has every_n_steps {every_n_steps} and images {images}; "
                "they must be at least 1 and 2"
            )
        self.every_n_steps = every_n_steps
        self.images = images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what the motivating pass cannot read."""
        require_unsharded_weights(trainer, self)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        """Measure and log, if it is time."""
        if batch_idx % self.every_n_steps:
            return
        backbone = cast(SMMixModule, pl_module).backbone
        # not compiled: a few images would be one more shape
        with untimed(), torch.compiler.set_stance("force_eager"):
            found = attention_quality(backbone, batch[0][: self.images])
        if trainer.is_global_zero:
            # Lightning's own log would wait for the next step that it logs
            values = {f"attention/{name}": float(value) for name, value in found.items()}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=current_step(trainer))


def attention_quality(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """The numbers that `AttentionQuality` logs, each a mean over images ``(B, 3, H, W)``."""
    grid = backbone.grid
    side = max(1, min(grid) // 2)
    attention = backbone.guide(images).attention
    most, least = most_attended(attention, side), least_attended(attention, side)
    origin = most.flip(0)
    mixed = paste(images, images.flip(0), least, origin, side, grid)
    covered = window_mask(least, side, grid)
    return {
        "entropy": normalized_entropy(attention).mean(),
        "copied": fraction_inside(attention, window_mask(most, side, grid)).mean(),
        "covered": fraction_inside(attention, covered).mean(),
        "pasted": fraction_inside(backbone.guide(mixed).attention, covered).mean(),
        "area": torch.tensor(side**2 / (grid[0] * grid[1])),
        "windows_overlap": ((most - least).abs() < side).all(dim=1).float().mean(),
    }


def normalized_entropy(attention: Tensor) -> Tensor:
    """Entropy over tokens of attention ``(B, G_h, G_w)``: 1 if uniform, 0 if on one token."""
    share = attention.flatten(1) / attention.sum(dim=(1, 2))[:, None]
    entropy = -torch.special.xlogy(share, share).sum(dim=1)
    return entropy / torch.tensor(float(share.shape[1])).log()


def fraction_inside(attention: Tensor, mask: Tensor) -> Tensor:
    """Share ``(B,)`` of attention ``(B, G_h, G_w)`` that falls on a mask ``(B, N)``."""
    attention = attention.flatten(1)
    return (attention * mask).sum(dim=1) / attention.sum(dim=1)
