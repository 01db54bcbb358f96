"""GridMix: fill the cells of a grid from one of two images (Baek et al., 2021)."""

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import in_range, positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask


class GridMix(Mixer):
    """Paste random grid cells of the source image over the same cells of the target image.

    Implemented from the paper's description, because no code was released: one mask per batch,
    labels by area. The paper's second part, a loss on the label of each cell, needs a head for
    cells and is not implemented. IlyaDobrynin/GridMixup and OpenMixup implement another method of
    this name, with periodic holes as in GridMask.

    Args:
        grid: Number of cells along each side of the image, at least 2.
        alpha: The target image keeps a fraction lam ~ Beta(alpha, alpha) of the cells, rounded.
            Above 0.
    """

    def __init__(self, grid: int = 4, alpha: float = 1.0) -> None:
        in_range("model.mixer.grid", grid, 2, 1024, "4 cells along each side are usual")
        self.grid = grid
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        cells = np.arange(self.grid**2)
        kept = round(len(cells) * rng.beta(self.alpha, self.alpha))
        mask = torch.from_numpy(rng.permutation(cells >= kept)).view(1, self.grid, self.grid)
        return mix_by_mask(images, labels, mask.to(images.device, non_blocking=True))
