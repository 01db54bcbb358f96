"""TokenMix: paste several blocks of tokens of one image over another (Liu et al., ECCV 2022)."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive, probability
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask
from smmix_pl.mixing.mixup import Mixup

MAX_ASPECT = 1 / 0.3
ATTEMPTS = 10


class TokenMix(Mixer):
    """Mix each batch by blocks of tokens, or by Mixup.

    As in the authors' code (Sense-X/TokenMix, `tokenmix.py`), one mask is drawn per batch, in
    blocks as in BEiT. The number of source tokens is fixed; CutMix's lam is not drawn. The mask
    lies on the model's token grid, 14 x 14 for DeiT.

    The authors weight the label of each image by its activation in the visible part, from maps that
    a trained NFNet stored. Here, a teacher's attention is that activation; without a teacher,
    labels follow the area. The two weights need not sum to 1, which the authors' binary cross
    entropy allows. Soft labels are a distribution, so the weights are divided by their sum.

    Args:
        switch_prob: Probability of TokenMix instead of Mixup, drawn once per batch, in [0, 1].
        mixup_alpha: Alpha of Mixup. Above 0.
        source_fraction: Fraction of the tokens that the blocks cover, in (0, 1). They cover less if
            no further block fits. The authors use 98 + 14 of 196 tokens.
        teacher: Trained model on the training device whose guide pass weights the labels. Python
            only; null for labels by area.
    """

    def __init__(
        self,
        switch_prob: float = 0.5,
        mixup_alpha: float = 0.8,
        source_fraction: float = 112 / 196,
        teacher: GuideModel | None = None,
    ) -> None:
        if not 0 < source_fraction < 1:
            raise InputError(
                f"model.mixer.source_fraction={source_fraction}: must be in (0, 1). The paper uses "
                "0.571."
            )
        self.switch_prob = probability("model.mixer.switch_prob", switch_prob)
        self.mixup = Mixup(positive("model.mixer.mixup_alpha", mixup_alpha))
        self.source_fraction = source_fraction
        self.teacher = teacher

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Check that blocks fit into the grid and leave some of it. See `Mixer`."""
        total = grid[0] * grid[1]
        if min(grid) < 2:
            raise InputError(
                f"data.image_size: TokenMix cannot place blocks on the {grid[0]} x {grid[1]} token "
                "grid, which has a single row or column. Use larger images or smaller patches."
            )
        if not 0 < self._source_tokens(grid) < total:
            raise InputError(
                f"model.mixer.source_fraction={self.source_fraction}: rounds to "
                f"{self._source_tokens(grid)} of the {total} tokens of the {grid[0]} x {grid[1]} "
                f"grid, so nothing would be mixed. Use {1 / total:.3g} to {1 - 1 / total:.3g}."
            )

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        mask = torch.from_numpy(block_mask(model.grid, self._source_tokens(model.grid), rng))[None]
        mask = mask.to(images.device, non_blocking=True)
        mixed = replace(mix_by_mask(images, labels, mask), notes={"branch": 1.0})
        if self.teacher is None:
            return mixed
        activation = self.teacher.guide(images).attention
        of_target = attended_fraction(activation, mask)
        of_source = 1.0 - attended_fraction(activation.flip(0), mask)
        lam = of_target / (of_target + of_source)
        return replace(mixed, labels=blend_labels(labels, lam), lam=lam)

    def _source_tokens(self, grid: tuple[int, int]) -> int:
        return round(self.source_fraction * grid[0] * grid[1])


def block_mask(grid: tuple[int, int], tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Draw random rectangles until they cover `tokens` tokens, or ten in a row did not fit.

    Args:
        grid: `(G_h, G_w)`.
        tokens: Number of tokens to cover, never exceeded.
        rng: Draws area, aspect ratio and place of each rectangle.

    Returns:
        `(G_h, G_w)` bool.
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
