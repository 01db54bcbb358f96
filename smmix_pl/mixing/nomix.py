"""No mixing: the baseline for all mixers."""

import numpy as np
from torch import Tensor

from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, check_soft_labels


class NoMix(Mixer):
    """Return images and labels unchanged."""

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Return the batch unchanged. See `Mixer`."""
        check_soft_labels(labels)
        return Mixed(images, labels, lam=1.0)
