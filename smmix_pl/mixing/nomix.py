"""No mixing: the baseline that every mixer is compared with."""

import numpy as np
from torch import Tensor

from smmix_pl.mixing.base import GuideModel, Mixed, Mixer


class NoMix(Mixer):
    """Pass images and labels through as they are."""

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix nothing; see `Mixer`."""
        return Mixed(images, labels, lam=1.0)
