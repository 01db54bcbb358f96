"""Mixing by a mask, which is true where the source image is pasted.

B batch, C channels, H W pixels. A mask is bool, `(B, h, w)`, or `(1, h, w)` if all images use the
same one. Its resolution is free: pixels, tokens, or the cells of a grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.mixing.base import Mixed, blend_labels


def mix_by_mask(images: Tensor, labels: Tensor, mask: Tensor) -> Mixed:
    """Paste the source image where the mask is true. Labels follow the area in pixels.

    Args:
        images: `(B, C, H, W)`. Left unchanged.
        labels: Soft labels, `(B, K)`. Left unchanged.
        mask: True where the source image is pasted, on the device of the images.
    """
    pixels = resample(mask, (images.shape[2], images.shape[3]))
    lam = 1.0 - pixels.float().mean(dim=(1, 2)).unsqueeze(1).expand(len(images), 1)
    mixed = torch.where(pixels[:, None], images.flip(0), images)
    return Mixed(mixed, blend_labels(labels, lam), lam)


def resample(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a mask to another resolution by nearest neighbors."""
    return F.interpolate(mask[:, None].float(), size).bool()[:, 0]


def attended_fraction(attention: Tensor, mask: Tensor) -> Tensor:
    """Compute the fraction of the attention that falls on the target image.

    Args:
        attention: `(B, G_h, G_w)`, non-negative.
        mask: True where the source image is pasted.

    Returns:
        `(B, 1)`.
    """
    on_target = attention * ~resample(mask, (attention.shape[1], attention.shape[2]))
    return (on_target.sum(dim=(1, 2)) / attention.sum(dim=(1, 2))).unsqueeze(1)
