"""Random distortion of colors for segmentation, as mmsegmentation defines it.

torchvision's RandomPhotometricDistort also permutes the channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

BRIGHTNESS = 32 / 255
"""Largest value that is added or subtracted."""
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE = 0.1
"""Largest turn of the hue, as a fraction of the circle."""


def distort_colors(image: Tensor) -> Tensor:
    """Change brightness, contrast, saturation, and hue, each with a probability of one half.

    Contrast, a factor of all values, is changed before or after the colors.

    Args:
        image: `(3, H, W)` uint8.
    """
    steps: list[Callable[[Tensor], Tensor]] = [_brighten, _saturate, _turn_hue]
    steps.insert(1 if _heads() else 3, _scale)
    values = image.float() / 255
    for step in steps:
        if _heads():
            values = step(values).clamp(0, 1)
    return (255 * values).round().to(torch.uint8)


def _brighten(values: Tensor) -> Tensor:
    return values + _uniform(-BRIGHTNESS, BRIGHTNESS)


def _scale(values: Tensor) -> Tensor:
    return values * _uniform(*FACTORS)


def _saturate(values: Tensor) -> Tensor:
    """Move all channels away from the largest one, or towards it: hue and value in HSV stay."""
    largest = values.amax(dim=0, keepdim=True)
    return largest - (largest - values) * _uniform(*FACTORS)


def _turn_hue(values: Tensor) -> Tensor:
    return F.adjust_hue(values, _uniform(-HUE, HUE))


def _heads() -> bool:
    return float(torch.rand(())) < 0.5


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))
