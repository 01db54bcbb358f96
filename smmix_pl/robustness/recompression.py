"""Corruptions that use Pillow. Images are `(B, 3, H, W)` in [0, 1]."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smmix_pl.robustness.patches import Generators

Picture = Image.Image


def jpeg_compression(images: Tensor, quality: int, _: Generators) -> Tensor:
    """Compress as a JPEG of a quality, 1 to 100."""

    def compress(picture: Picture) -> Picture:
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _through_pillow(images, compress)


def pixelate(images: Tensor, scale: float, _: Generators) -> Tensor:
    """Reduce the sides to a fraction and enlarge them again, without interpolation."""

    def shrink(picture: Picture) -> Picture:
        width, height = picture.size
        small = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
        return small.resize((width, height), Image.Resampling.BOX)

    return _through_pillow(images, shrink)


def _through_pillow(images: Tensor, change: Callable[[Picture], Picture]) -> Tensor:
    pixels = (255 * images).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    changed = [np.asarray(change(Image.fromarray(one))) for one in pixels]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(images) / 255
