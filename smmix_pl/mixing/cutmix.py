"""CutMix: a random box of one image over the same place of another (Yun et al., 2019)."""

import math

import numpy as np
from torch import Tensor

from smmix_pl.checks import positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend


class CutMix(Mixer):
    """Paste one random box of the source image over the same pixels of the target image.

    As in timm and DeiT: the box has the images' aspect ratio and a uniform center, is clipped at
    the border, and lam is corrected to the area that was really covered. Sides are even, as in the
    timm of the published results; newer ones give odd sides their last pixel.

    Args:
        alpha: Before clipping the box covers 1 - lam of the image, lam ~ Beta(alpha, alpha); above
            0.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = positive("CutMix's alpha", alpha, "The paper uses 1")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        height, width = images.shape[-2:]
        rows, columns = self.box(height, width, rng)
        mixed = images.clone()
        mixed[..., rows, columns] = images[..., rows, columns].flip(0)
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        lam = 1.0 - area / (height * width)
        return Mixed(mixed, blend(labels, lam), lam)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """The rows and the columns of a random box."""
        side_ratio = math.sqrt(1.0 - rng.beta(self.alpha, self.alpha))
        return _clipped_span(height, side_ratio, rng), _clipped_span(width, side_ratio, rng)


def _clipped_span(length: int, ratio: float, rng: np.random.Generator) -> slice:
    center, half = int(rng.integers(0, length)), int(length * ratio) // 2
    return slice(max(center - half, 0), min(center + half, length))
