"""Attentive CutMix: paste the most attended cells of one image (Walawalkar et al., 2020)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.checks import in_range
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask


class AttentiveCutMix(Mixer):
    """Paste the most attended grid cells of the source image at the same place of the target.

    The paper reads the last 7 x 7 feature map of a pretrained ResNet-50, and no code was released.
    Here, the attention comes from the model being trained or from a teacher, averaged over the
    cells. Labels follow the area: cells / grid^2 if the grid divides the image.

    Args:
        cells: Number of pasted cells, from 1 to grid^2 - 1. The paper found 6 to be best.
        grid: Number of cells along each side of the image.
        teacher: Trained model on the training device whose guide pass selects the cells. Python
            only; null uses the model being trained.
    """

    def __init__(self, cells: int = 6, grid: int = 7, teacher: GuideModel | None = None) -> None:
        in_range("model.mixer.grid", grid, 2, 1024, "The paper uses 7")
        in_range("model.mixer.cells", cells, 1, grid**2 - 1, "The paper uses 6 of 7 x 7 cells")
        self.cells = cells
        self.grid = grid
        self.teacher = teacher

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        attention = (self.teacher or model).guide(images).attention.flip(0)
        scores = F.adaptive_avg_pool2d(attention, self.grid).flatten(1)
        best = scores.argsort(dim=1, descending=True, stable=True)[:, : self.cells]
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
        return mix_by_mask(images, labels, mask.unflatten(1, (self.grid, self.grid)))
