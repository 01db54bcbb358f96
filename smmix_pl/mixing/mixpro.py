"""MixPro: grid masks with progressive attention labels (Zhao et al., ICLR 2023)."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import in_range, positive, probability
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask
from smmix_pl.mixing.mixup_cutmix import MixupCutMix


class MixPro(Mixer):
    """Mix each batch by MaskMix with progressive attention labels (PAL), or by Mixup or CutMix.

    MaskMix divides the tokens into coarse cells and takes each cell from the target or the source
    image, at random for each image. PAL moves the label weight from the area fraction to the
    fraction of the class token's attention. The mixing factor is the cosine similarity of the mixed
    labels and the prediction, and carries gradient.

    Follows the authors' code (fistyee/MixPro, `main.py` and `utils.py`) with two deviations. The
    area fraction counts pixels instead of cells, which differs only if cells do not divide the
    token grid. The loss keeps the configured label smoothing.

    Args:
        switch_prob: Probability of MaskMix instead of the DeiT recipe, drawn once per batch, in
            [0, 1].
        alpha: The target image keeps a fraction lam ~ Beta(alpha, alpha) of the cells, rounded up.
            Above 0.
        cell_side: Side of a cell in tokens, at least 1. The authors use 4: 56 pixels at patch size
            14.
        progressive: True for PAL labels, as in the paper. False for area labels, as in the
            released DeiT configs.
    """

    readout = "class"

    def __init__(
        self,
        switch_prob: float = 0.5,
        alpha: float = 1.0,
        cell_side: int = 4,
        progressive: bool = True,
    ) -> None:
        in_range("model.mixer.cell_side", cell_side, 1, hint="The paper uses 4")
        self.switch_prob = probability("model.mixer.switch_prob", switch_prob)
        self.otherwise = MixupCutMix()
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")
        self.cell_side = cell_side
        self.progressive = progressive

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Check that the grid has more than one cell. See `Mixer`."""
        if self.cell_side >= max(grid):
            raise InputError(
                f"model.mixer.cell_side={self.cell_side}: one cell covers the complete {grid[0]} x "
                f"{grid[1]} token grid, so MixPro would never mix. Use at most {max(grid) - 1}, or "
                "larger images."
            )

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.otherwise(images, labels, model, rng), notes={"branch": 0.0})
        mask = self.cell_mask(len(images), model.grid, rng).to(images.device, non_blocking=True)
        mixed = replace(mix_by_mask(images, labels, mask), notes={"branch": 1.0})

        def attentive_labels(attention: Tensor, logits: Tensor) -> Tensor:
            agreement = torch.cosine_similarity(mixed.labels, logits.softmax(dim=1)).unsqueeze(1)
            lam = agreement * attended_fraction(attention, mask) + (1.0 - agreement) * mixed.lam
            return blend_labels(labels, lam)

        return replace(mixed, attentive_labels=attentive_labels if self.progressive else None)

    def cell_mask(self, batch: int, grid: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Draw the tokens that come from the source image: `(B, G_h, G_w)` bool, on the CPU."""
        side = self.cell_side
        cells = (math.ceil(grid[0] / side), math.ceil(grid[1] / side))
        total = cells[0] * cells[1]
        kept = math.ceil(total * rng.beta(self.alpha, self.alpha))
        ordered = np.broadcast_to(np.arange(total) >= kept, (batch, total))
        mask = torch.from_numpy(rng.permuted(ordered, axis=1)).unflatten(1, cells)
        mask = mask.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        return mask[:, : grid[0], : grid[1]]
