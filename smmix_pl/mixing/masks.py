"""Mixing by a mask: the source image's pixels where it is true, the target image's elsewhere.

B batch, C channels, H W pixels. A mask is bool ``(B, h, w)``, or ``(1, h, w)`` for one that all
images share, at any resolution: pixels, tokens or the cells of a grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.mixing.base import Mixed, blend


def mix_by_mask(images: Tensor, labels: Tensor, mask: Tensor) -> Mixed:
    """Paste what the mask covers; labels follow the area in pixels.

    Args:
        images: ``(B, C, H, W)``; left unchanged.
        labels: Soft labels, ``(B, K)``; left unchanged.
        mask: True where the source image is pasted, on the images' device.
    """
    pixels = resample(mask, (images.shape[2], images.shape[3]))
    lam = 1.0 - pixels.float().mean(dim=(1, 2)).unsqueeze(1).expand(len(images), 1)
    mixed = torch.where(pixels[:, None], images.flip(0), images)
    return Mixed(mixed, blend(labels, lam), lam)


def resample(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask at another resolution, by its nearest cells."""
    return F.interpolate(mask[:, None].float(), size).bool()[:, 0]


def attended_fraction(attention: Tensor, mask: Tensor) -> Tensor:
    """The share of the attention that falls outside the mask, on the target image's tokens.

    Args:
        attention: ``(B, G_h, G_w)``, non-negative.
        mask: True where the source image is pasted.

    Returns:
        ``(B, 1)``.
    """
    on_target = attention * ~resample(mask, (attention.shape[1], attention.shape[2]))
    return (on_target.sum(dim=(1, 2)) / attention.sum(dim=(1, 2))).unsqueeze(1)
