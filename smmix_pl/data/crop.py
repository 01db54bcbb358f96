"""timm's random resized crop, with faster JPEG decoding and torch's uint8 resize kernel."""

import random

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.nn import functional as F

from smmix_pl.data.io.images import to_rgb
from smmix_pl.data.io.jpeg import decode_jpeg


class RandomResizedCrop(RandomResizedCropAndInterpolation):
    """Random resized crop of an opened Pillow image. JPEGs are decoded only as finely as needed.

    timm chooses the crop from the header. For large crops, libjpeg decodes at 1/2, 1/4, or 1/8 of
    the scale, at least twice as finely as the output. The difference from resizing the full image
    is small (measured in `benchmarks/loader_speed.py`).

    Args (of timm's class): size (H, W), scale (area, min and max), ratio (min and max),
    interpolation.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a random part of the image at the output size."""
        box = self.get_params(image, self.scale, self.ratio)
        step = max(1, min(box[2] // (2 * self.size[0]), box[3] // (2 * self.size[1])))
        pixels = decode_jpeg(image) if step == 1 else None
        part = _part_of_image(image, box, step) if pixels is None else _part_of_pixels(pixels, box)
        return Image.fromarray(resized(part, self.size, self._kernel()))

    def draw(self, height: int, width: int) -> tuple[int, ...]:
        """Draw a crop for an image of a size: top, left, height, width, and 1 for bicubic."""
        size = torch.empty(0, height, width)
        top, left, high, wide = self.get_params(size, self.scale, self.ratio)
        return top, left, max(1, high), max(1, wide), int(self._kernel() == "bicubic")

    def _kernel(self) -> str:
        if isinstance(self.interpolation, tuple):
            return random.choice(self.interpolation).value
        return self.interpolation.value


def _part_of_pixels(pixels: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    top, left, height, width = box
    # timm rounds the short side of a very long crop to 0
    return np.ascontiguousarray(pixels[top:, left:][: max(1, height), : max(1, width)])


def _part_of_image(image: Image.Image, box: tuple[int, ...], step: int) -> np.ndarray:
    full = image.width
    if image.format == "JPEG":
        image.draft(image.mode, (image.width // step, image.height // step))
    elif image.mode[0] in "IF":  # its conversion depends on the file and on all pixels
        image = to_rgb(image)
    top, left, height, width = (max(0, round(v * image.width / full)) for v in box)
    part = image.crop((left, top, left + max(1, width), top + max(1, height)))
    return np.array(to_rgb(part))


def resized(pixels: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    """Resize with antialiasing, equal to Pillow within rounding.

    Args:
        pixels: uint8 `(H, W, 3)`.
        size: Output (H, W).
        kernel: `bicubic` or `bilinear`.
    """
    channels_first = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    scaled = F.interpolate(channels_first, size, mode=kernel, antialias=True)
    return scaled.permute(0, 2, 3, 1)[0].contiguous().numpy()
