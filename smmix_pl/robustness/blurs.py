"""Blurs among the common corruptions. Images are `(B, C, H, W)` in [0, 1]."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.robustness.patches import Generators


def gaussian_blur(images: Tensor, sigma: float, _: Generators) -> Tensor:
    """Blur like scikit-image's `gaussian`: truncated at four sigma, with a replicated border."""
    kernel = _gaussian(int(4 * sigma + 0.5), sigma).to(images)
    radius = len(kernel) // 2
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    return _filter(_filter(padded, kernel[:, None]), kernel[None, :])


def defocus_blur(images: Tensor, disk: tuple[float, float], _: Generators) -> Tensor:
    """Blur with a disk of a radius, antialiased with a sigma. The border is reflected."""
    kernel = _disk(*disk).to(images)
    radius = len(kernel) // 2
    return _filter(F.pad(images, (radius,) * 4, mode="reflect"), kernel)


def zoom_blur(images: Tensor, zooms: tuple[float, float], _: Generators) -> Tensor:
    """Average the image with itself at increasing zoom."""
    factors = np.arange(1, zooms[0], zooms[1]).tolist()
    zoomed = [_clipped_zoom(images, factor) for factor in factors]
    return (images + torch.stack(zoomed).sum(dim=0)) / (len(factors) + 1)


def _gaussian(radius: int, sigma: float) -> Tensor:
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-(at**2) / (2 * sigma**2)).exp()
    return weights / weights.sum()


def _disk(radius: float, sigma: float) -> Tensor:
    """Return the authors' `disk`: side at least 17, smoothed by 3 x 3 (5 x 5 above radius 8)."""
    half, smooth = (8, 1) if radius <= 8 else (int(radius), 2)
    at = torch.arange(-half, half + 1, dtype=torch.float64)
    inside = (at[:, None] ** 2 + at[None, :] ** 2 <= radius**2).double()
    inside = F.pad((inside / inside.sum())[None, None], (smooth,) * 4, mode="reflect")
    weights = _gaussian(smooth, sigma)
    return F.conv2d(inside, torch.outer(weights, weights)[None, None])[0, 0]


def _filter(padded: Tensor, kernel: Tensor) -> Tensor:
    """Filter every channel with the same kernel, without padding."""
    channels = padded.shape[1]
    return F.conv2d(padded, kernel.expand(channels, 1, *kernel.shape), groups=channels)


def _clipped_zoom(images: Tensor, factor: float) -> Tensor:
    """Zoom the center of the images linearly to the full size (`scipy.ndimage.zoom`)."""
    size = images.shape[2:]
    crop = [math.ceil(side / factor) for side in size]
    start = [(side - part) // 2 for side, part in zip(size, crop, strict=True)]
    middle = images[:, :, start[0] : start[0] + crop[0], start[1] : start[1] + crop[1]]
    large = [round(part * factor) for part in crop]
    zoomed = F.interpolate(middle, size=large, mode="bilinear", align_corners=True)
    trim = [(side - full) // 2 for side, full in zip(large, size, strict=True)]
    return zoomed[:, :, trim[0] : trim[0] + size[0], trim[1] : trim[1] + size[1]]
