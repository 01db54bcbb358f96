"""Mixup: convex combinations of two images and of their labels (Zhang et al., 2018)."""

import numpy as np
from torch import Tensor

from smmix_pl.checks import positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend, blend_labels


class Mixup(Mixer):
    """Blend each image with its source image, with one `lam` per batch.

    Args:
        alpha: lam ~ Beta(alpha, alpha). Above 0. DeiT and SMMix use 0.8.
    """

    def __init__(self, alpha: float = 0.8) -> None:
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 0.8")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        lam = rng.beta(self.alpha, self.alpha)
        return Mixed(blend(images, lam), blend_labels(labels, lam), lam)
