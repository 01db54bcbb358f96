"""GridMix: the cells of a grid from one image or the other (Baek et al., 2021)."""

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import in_range, positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask


class GridMix(Mixer):
    """Paste random cells of a grid of the source image over the same cells of the target image.

    Our reading of the paper's description, with no code of the authors to hold it against: one mask
    for the batch, labels by area. The paper's second half, a loss on each cell's own label, needs
    a head for cells and is left out. (Another method of this name, periodic holes as in GridMask,
    is what IlyaDobrynin/GridMixup and OpenMixup hold.)

    Args:
        grid: Cells along each side of the image, at least 2.
        alpha: The target image keeps a share lam ~ Beta(alpha, alpha) of the cells, rounded; above
            0.
    """

    def __init__(self, grid: int = 4, alpha: float = 1.0) -> None:
        in_range("GridMix's grid", grid, 2, 1024, "cells along each side; 4 is usual")
        self.grid = grid
        self.alpha = positive("GridMix's alpha", alpha, "The paper uses 1")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        cells = np.arange(self.grid**2)
        kept = round(len(cells) * rng.beta(self.alpha, self.alpha))
        mask = torch.from_numpy(rng.permutation(cells >= kept)).view(1, self.grid, self.grid)
        return mix_by_mask(images, labels, mask.to(images.device, non_blocking=True))
