"""SaliencyMix: paste a box around the most salient pixel (Uddin et al., 2021).

B batch, C channels, H W pixels, L length of one axis.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.checks import one_of, positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask

NEIGHBORHOODS = (12, 24, 48, 28, 56, 112)
LUMA = (0.299, 0.587, 0.114)


class SaliencyMix(Mixer):
    """Paste a box around the saliency peak of the source image over the same pixels of the target.

    As in the authors' code (afm-shahab-uddin/SaliencyMix), the box is CutMix's, clipped at the
    border and centered on the peak of OpenCV's fine-grained saliency. There are two deviations.
    First, the detector gets 8-bit gray images, each stretched over its own range. The authors pass
    normalized floats, whose bytes OpenCV interprets as pixels. Second, every batch is mixed; on
    CIFAR the authors mix half of them.

    Args:
        alpha: Before clipping, the box covers 1 - lam of the image, lam ~ Beta(alpha, alpha). Above
            0.
        peak: `first` uses one box per batch, at the peak of the first image's source, as in the
            authors' code. `each` uses the peak of each source image, as in the paper.
    """

    def __init__(self, alpha: float = 1.0, peak: Literal["first", "each"] = "first") -> None:
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")
        one_of("model.mixer.peak", peak, ("first", "each"))
        self.peak = peak

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        height, width = images.shape[-2:]
        side_ratio = math.sqrt(1.0 - rng.beta(self.alpha, self.alpha))
        sources = images.flip(0) if self.peak == "each" else images[-1:]
        peaks = fine_grained_saliency(gray_levels(sources)).flatten(1).argmax(dim=1)
        rows = _near(peaks // width, height, side_ratio)
        columns = _near(peaks % width, width, side_ratio)
        return mix_by_mask(images, labels, rows[:, :, None] & columns[:, None, :])


def gray_levels(images: Tensor) -> Tensor:
    """Convert images to gray levels, stretched over the integers 0 to 255.

    Args:
        images: `(B, C, H, W)`. Three channels are red, green and blue.

    Returns:
        `(B, H, W)` float32.
    """
    if images.shape[1] == 3:
        red, green, blue = images.float().unbind(dim=1)
        gray = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    else:
        gray = images.float().mean(dim=1)
    gray = gray - gray.amin(dim=(1, 2), keepdim=True)
    highest = gray.amax(dim=(1, 2), keepdim=True)
    return (255 * gray / torch.where(highest > 0, highest, 1.0)).round()


def fine_grained_saliency(gray: Tensor) -> Tensor:
    """Compute center-surround differences over six neighborhoods (Montabone and Soto, 2010).

    As in OpenCV's `StaticSaliencyFineGrained`, images are smoothed twice. Each pixel is compared
    with the mean of its neighborhood without itself. The amounts by which it is brighter (on) or
    darker (off) are truncated to integers and summed. Both sums are scaled to 255 and added.
    OpenCV's 8-bit result overflows where on and off exceed 255 together; this one does not.

    Args:
        gray: `(B, H, W)` float32, integers from 0 to 255, at least 2 x 2 pixels.

    Returns:
        `(B, H, W)` float32, from 0 to 510.
    """
    height, width = gray.shape[1:]
    gray = _smooth(_smooth(gray))
    integral = F.pad(gray.long().cumsum(dim=1).cumsum(dim=2), (1, 0, 1, 0))
    on, off = torch.zeros_like(gray), torch.zeros_like(gray)
    for reach in NEIGHBORHOODS:
        top, bottom = _span(height, reach, gray.device)
        left, right = _span(width, reach, gray.device)
        strips = integral[:, bottom] - integral[:, top]
        others = (bottom - top)[:, None] * (right - left) - 1
        surround = (strips[:, :, right] - strips[:, :, left] - gray) / others.clamp(min=1)
        on += (gray - surround).clamp(min=0).floor()
        off += (surround - gray).clamp(min=0).floor()
    return _to_255(on) + _to_255(off)


def _near(center: Tensor, length: int, ratio: float) -> Tensor:
    """Mark the pixels of boxes around their centers on one axis, `(B, L)` bool."""
    half = int(length * ratio) // 2
    offset = torch.arange(length, device=center.device) - center[:, None]
    return (offset >= -half) & (offset < half)


def _smooth(gray: Tensor) -> Tensor:
    """Apply the binomial 3 x 3 filter with reflection padding, and round."""
    padded = F.pad(gray[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    total = rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return (total / 16 + 0.5).floor()


def _span(length: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the start and end of each pixel's neighborhood on one axis, offset as in OpenCV."""
    pixel = torch.arange(length, device=device)
    return (pixel - reach + 1).clamp(min=0), (pixel + reach + 1).clamp(max=length)


def _to_255(values: Tensor) -> Tensor:
    return (255 * values / values.amax(dim=(1, 2), keepdim=True).clamp(min=1)).floor()
