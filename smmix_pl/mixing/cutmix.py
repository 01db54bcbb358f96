"""CutMix: a random box of one image over the same place of another (Yun et al., 2019)."""

import math

import numpy as np
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Mixed, Mixer, Motivator, blend


class CutMix(Mixer):
    """Paste one random box of the source image over the same pixels of the target image.

    As in timm and DeiT: the box has the images' aspect ratio and a uniform centre, is clipped at
    the border, and lam is corrected to the area that was really covered.

    Args:
        alpha: Before clipping the box covers 1 - lam of the image, lam ~ Beta(alpha, alpha); above
            0.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if alpha <= 0:
            raise InputError(f"CutMix's alpha is {alpha}; it must be above 0 (the paper takes 1)")
        self.alpha = alpha

    def __call__(
        self, images: Tensor, labels: Tensor, model: Motivator, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        height, width = images.shape[-2:]
        side_ratio = math.sqrt(1.0 - rng.beta(self.alpha, self.alpha))
        top, bottom = _clipped_span(height, side_ratio, rng)
        left, right = _clipped_span(width, side_ratio, rng)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
        lam = 1.0 - (bottom - top) * (right - left) / (height * width)
        return Mixed(mixed, blend(labels, lam), lam)


def _clipped_span(length: int, ratio: float, rng: np.random.Generator) -> tuple[int, int]:
    centre, half = int(rng.integers(0, length)), int(length * ratio) // 2
    return max(centre - half, 0), min(centre + half, length)
