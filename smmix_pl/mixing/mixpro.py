"""MixPro: grid masks, and labels that come to trust attention (Zhao et al., ICLR 2023)."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive, probability
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask
from smmix_pl.mixing.mixup_cutmix import MixupCutMix


class MixPro(Mixer):
    """Each batch: MaskMix with progressive attention labels (PAL), else Mixup or CutMix.

    MaskMix lays a coarse grid over the tokens and takes its cells from the target or the source
    image, at random for each image. PAL moves the label share from the area share to the share of
    the class token's attention by a progressive factor, the cosine similarity of the mixed labels
    and the model's prediction. As in the authors' code (fistyee/MixPro, `main.py` and `utils.py`),
    where the factor carries gradient. Unlike there: the area share counts pixels, not cells, which
    is the same where the cells divide the token grid; and the loss keeps the label smoothing that
    it is given.

    Args:
        switch_prob: Probability of MaskMix rather than Mixup or CutMix by DeiT's recipe, drawn once
            per batch; in [0, 1].
        alpha: The target image keeps a share lam ~ Beta(alpha, alpha) of the cells, rounded up;
            above 0.
        cell_side: Side of a cell in tokens, at least 1; the authors' 56 pixels of patches of 14.
        progressive: Labels by PAL, as in the paper, or by the area alone (MaskMix), as the released
            DeiT configs set it.
    """

    readout = "class"

    def __init__(
        self,
        switch_prob: float = 0.5,
        alpha: float = 1.0,
        cell_side: int = 4,
        progressive: bool = True,
    ) -> None:
        if cell_side < 1:
            raise InputError(f"MixPro's cell_side is {cell_side}; a cell is at least 1 token wide")
        self.switch_prob = probability("MixPro's switch_prob", switch_prob)
        self.otherwise = MixupCutMix()
        self.alpha = positive("MixPro's alpha", alpha, "The paper uses 1")
        self.cell_side = cell_side
        self.progressive = progressive

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.otherwise(images, labels, model, rng), notes={"branch": 0.0})
        mask = self.cell_mask(len(images), model.grid, rng).to(images.device, non_blocking=True)
        mixed = replace(mix_by_mask(images, labels, mask), notes={"branch": 1.0})

        def attentive_labels(attention: Tensor, logits: Tensor) -> Tensor:
            agreement = torch.cosine_similarity(mixed.labels, logits.softmax(dim=1)).unsqueeze(1)
            lam = agreement * attended_fraction(attention, mask) + (1.0 - agreement) * mixed.lam
            return blend(labels, lam)

        return replace(mixed, attentive_labels=attentive_labels if self.progressive else None)

    def cell_mask(self, batch: int, grid: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Which tokens come from the source image: ``(B, G_h, G_w)`` bool, on the CPU."""
        side = min(self.cell_side, max(grid))
        cells = (math.ceil(grid[0] / side), math.ceil(grid[1] / side))
        total = cells[0] * cells[1]
        kept = math.ceil(total * rng.beta(self.alpha, self.alpha))
        ordered = np.broadcast_to(np.arange(total) >= kept, (batch, total))
        mask = torch.from_numpy(rng.permuted(ordered, axis=1)).unflatten(1, cells)
        mask = mask.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        return mask[:, : grid[0], : grid[1]]
