"""TokenMix: several blocks of tokens of one image over those of another (Liu et al., ECCV 2022)."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import probability
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask
from smmix_pl.mixing.mixup import Mixup

MAX_ASPECT = 1 / 0.3
ATTEMPTS = 10


class TokenMix(Mixer):
    """Each batch: block-wise token mixing, else Mixup.

    As in the authors' code (Sense-X/TokenMix, `tokenmix.py`): one mask for the batch, drawn in
    blocks as in BEiT, of a fixed number of tokens; CutMix's lam is not drawn. The mask lies on the
    model's token grid, which for DeiT is the authors' 14 x 14.

    The authors weigh each image's label by its activation, in maps stored by a trained NFNet, under
    the part of it that is visible. Here a teacher's attention is that activation; without a
    teacher labels follow the area. The two weights need not sum to 1, which the authors' binary
    cross entropy allows; ours takes a distribution, so they are divided by their sum.

    Args:
        switch_prob: Probability of TokenMix rather than Mixup, drawn once per batch; in [0, 1].
        mixup_alpha: Mixup's alpha, above 0.
        source_share: Share of the tokens that the blocks cover, in (0, 1); fewer where no further
            block fits. The authors' 98 + 14 of 196.
        teacher: A trained model on the training device whose `guide` weighs the labels, from
            Python; null for labels by area.
    """

    def __init__(
        self,
        switch_prob: float = 0.5,
        mixup_alpha: float = 0.8,
        source_share: float = 112 / 196,
        teacher: GuideModel | None = None,
    ) -> None:
        if not 0 < source_share < 1:
            raise InputError(f"TokenMix's source_share is {source_share}; it must be in (0, 1)")
        self.switch_prob = probability("TokenMix's switch_prob", switch_prob)
        self.mixup = Mixup(mixup_alpha)
        self.source_share = source_share
        self.teacher = teacher

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        tokens = round(self.source_share * model.grid[0] * model.grid[1])
        mask = torch.from_numpy(block_mask(model.grid, tokens, rng))[None]
        mask = mask.to(images.device, non_blocking=True)
        mixed = replace(mix_by_mask(images, labels, mask), notes={"branch": 1.0})
        if self.teacher is None:
            return mixed
        activation = self.teacher.guide(images).attention
        of_target = attended_fraction(activation, mask)
        of_source = 1.0 - attended_fraction(activation.flip(0), mask)
        lam = of_target / (of_target + of_source)
        return replace(mixed, labels=blend(labels, lam), lam=lam)


def block_mask(grid: tuple[int, int], tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Random rectangles, until they cover a number of tokens or ten in a row did not fit.

    Args:
        grid: ``(G_h, G_w)``.
        tokens: How many tokens to cover, never more.
        rng: Draws area, aspect ratio and place of each rectangle.

    Returns:
        ``(G_h, G_w)`` bool.
    """
    mask = np.zeros(grid, dtype=bool)
    missed = 0
    while missed < ATTEMPTS and (room := tokens - int(mask.sum())) > 0:
        area = rng.uniform(1, room)
        aspect = math.exp(rng.uniform(-math.log(MAX_ASPECT), math.log(MAX_ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        missed += 1
        if height >= grid[0] or width >= grid[1]:
            continue
        top = rng.integers(0, grid[0] - height, endpoint=True)
        left = rng.integers(0, grid[1] - width, endpoint=True)
        block = mask[top : top + height, left : left + width]
        if 0 < block.size - block.sum() <= room:
            block[:] = True
            missed = 0
    return mask
