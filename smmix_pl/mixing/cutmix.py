"""CutMix: paste a random box of one image at the same place of another (Yun et al., 2019)."""

import math

import numpy as np
from torch import Tensor

from smmix_pl.checks import positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels


class CutMix(Mixer):
    """Paste one random box of the source image over the same pixels of the target image.

    As in timm and DeiT, the box has the aspect ratio of the images and a uniform center, and is
    clipped at the border. `lam` is corrected to the area that is covered. Box sides are even, as in
    the timm version of the published results; newer versions round odd sides differently.

    Args:
        alpha: Before clipping, the box covers 1 - lam of the image, lam ~ Beta(alpha, alpha). Above
            0.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        height, width = images.shape[-2:]
        rows, columns = self.box(height, width, rng)
        mixed = images.clone()
        mixed[..., rows, columns] = images[..., rows, columns].flip(0)
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        lam = 1.0 - area / (height * width)
        return Mixed(mixed, blend_labels(labels, lam), lam)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Draw a random box and return its rows and columns."""
        side_ratio = math.sqrt(1.0 - rng.beta(self.alpha, self.alpha))
        return _clipped_span(height, side_ratio, rng), _clipped_span(width, side_ratio, rng)


def _clipped_span(length: int, ratio: float, rng: np.random.Generator) -> slice:
    center, half = int(rng.integers(0, length)), int(length * ratio) // 2
    return slice(max(center - half, 0), min(center + half, length))
