"""timm's random resized crop, faster: less is decoded, and torch's uint8 kernel resizes."""

import random

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.nn import functional as F

from smmix_pl.data.io.images import to_rgb


class RandomResizedCrop(RandomResizedCropAndInterpolation):
    """Crops and resizes an opened Pillow image, and decodes a JPEG only as finely as that needs.

    The crop is chosen by timm from the header alone. Where it is large, libjpeg decodes at 1/2, 1/4
    or 1/8 of the scale, and still twice as finely as the output: the difference to resizing the
    full image is then small (measured in ``benchmarks/loading.py``).

    Args (of timm's class): size (H, W), scale (area, min and max), ratio (min and max),
    interpolation.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        """A random part of the image, at the output size."""
        box = self.get_params(image, self.scale, self.ratio)
        full = image.width
        if image.format == "JPEG":
            step = max(1, min(box[2] // (2 * self.size[0]), box[3] // (2 * self.size[1])))
            image.draft(image.mode, (image.width // step, image.height // step))
        top, left, height, width = (max(0, round(v * image.width / full)) for v in box)
        # timm rounds the side of a very long crop to nothing
        part = image.crop((left, top, left + max(1, width), top + max(1, height)))
        part.format = image.format  # tells 16-bit from 32-bit gray
        return Image.fromarray(resized(np.array(to_rgb(part)), self.size, self._kernel()))

    def _kernel(self) -> str:
        if isinstance(self.interpolation, tuple):
            return random.choice(self.interpolation).value
        return self.interpolation.value


def resized(pixels: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    """Resize with antialiasing, within rounding of what Pillow gives.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        size: (H, W) of the result.
        kernel: ``bicubic`` or ``bilinear``.
    """
    channels_first = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    scaled = F.interpolate(channels_first, size, mode=kernel, antialias=True)
    return scaled.permute(0, 2, 3, 1)[0].contiguous().numpy()
