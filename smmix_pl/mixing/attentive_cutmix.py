"""Attentive CutMix: the most attended cells of one image over another (Walawalkar et al., 2020)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask


class AttentiveCutMix(Mixer):
    """Paste the source image's most attended grid cells over the same cells of the target image.

    The paper reads a pretrained ResNet-50's last feature map, 7 x 7; the authors released no code.
    Here the attention is that of the model under training, averaged onto the same grid, or a
    teacher's. Labels follow the area, cells / grid^2 where the grid divides the image.

    Args:
        cells: How many cells are pasted, from 1 to grid^2 - 1; the paper found 6 best.
        grid: Cells along each side of the image.
        teacher: A trained model on the training device whose `guide` chooses the cells, from
            Python; null for the model under training.
    """

    def __init__(self, cells: int = 6, grid: int = 7, teacher: GuideModel | None = None) -> None:
        if grid < 2 or not 0 < cells < grid**2:
            raise InputError(
                f"AttentiveCutMix's cells are {cells} of a {grid} x {grid} grid; they must leave "
                "something of both images (the paper: 6 of 7 x 7)"
            )
        self.cells = cells
        self.grid = grid
        self.teacher = teacher

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        attention = (self.teacher or model).guide(images).attention.flip(0)
        scores = F.adaptive_avg_pool2d(attention, self.grid).flatten(1)
        best = scores.argsort(dim=1, descending=True, stable=True)[:, : self.cells]
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
        return mix_by_mask(images, labels, mask.unflatten(1, (self.grid, self.grid)))
