"""timm's augmentation operations, fixed for Pillow 13, with faster shears and translations.

Pillow resamples every affine transform with a 4 x 4 kernel. A shear or a translation moves pixels
only within their row (or column), where a 4 x 1 kernel gives the same result.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.auto_augment import AugmentOp, AutoAugment, RandAugment
from torch import Tensor


def fast_augment(step: Any) -> Any:
    """Replace the operations of a step of timm's transform by faster or fixed ones."""
    operations: list[AugmentOp] = []
    if isinstance(step, RandAugment):
        operations = list(step.ops)
    elif isinstance(step, AutoAugment):
        operations = list(chain(*step.policy))
    for operation in operations:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize
        elif operation.kwargs["resample"] == Image.Resampling.BICUBIC:
            operation.aug_fn = ALONG_ROWS.get(operation.aug_fn, operation.aug_fn)
    return step


def posterize(image: Image.Image, bits: int, **unused: Any) -> Image.Image:
    """Keep the highest bits of each value. Pillow 13 rejects 0 bits, which make the image black."""
    if bits < 1:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits)


def shear_x(image: Image.Image, factor: float, fillcolor: Any, **unused: Any) -> Image.Image:
    """Shift each row by `factor` times its vertical position."""
    return _along_rows(image, factor * (np.arange(image.height) + 0.5), fillcolor)


def shear_y(image: Image.Image, factor: float, fillcolor: Any, **unused: Any) -> Image.Image:
    """Shift each column by `factor` times its horizontal position."""
    return _along_columns(image, factor * (np.arange(image.width) + 0.5), fillcolor)


def translate_x(image: Image.Image, pixels: float, fillcolor: Any, **unused: Any) -> Image.Image:
    """Shift the image to the left by a number of pixels."""
    return _along_rows(image, np.full(image.height, pixels), fillcolor)


def translate_y(image: Image.Image, pixels: float, fillcolor: Any, **unused: Any) -> Image.Image:
    """Shift the image up by a number of pixels."""
    return _along_columns(image, np.full(image.width, pixels), fillcolor)


def translate_x_rel(image: Image.Image, fraction: float, **options: Any) -> Image.Image:
    """Shift the image to the left by a fraction of its width."""
    return translate_x(image, fraction * image.width, **options)


def translate_y_rel(image: Image.Image, fraction: float, **options: Any) -> Image.Image:
    """Shift the image up by a fraction of its height."""
    return translate_y(image, fraction * image.height, **options)


ALONG_ROWS: dict[Any, Callable[..., Image.Image]] = {
    auto_augment.shear_x: shear_x,
    auto_augment.shear_y: shear_y,
    auto_augment.translate_x_abs: translate_x,
    auto_augment.translate_y_abs: translate_y,
    auto_augment.translate_x_rel: translate_x_rel,
    auto_augment.translate_y_rel: translate_y_rel,
}


def shift_rows(pixels: Tensor, shifts: Tensor, fill: int) -> Tensor:
    """Shift each row to the left by its own number of pixels, with bicubic interpolation.

    Args:
        pixels: `(H, W)` int32. Each holds the four bytes of one pixel, faster than three channels.
        shifts: `(H,)` float64.
        fill: Pixel outside the image.

    Returns:
        `(H, W)` int32, each byte within 1 of Pillow's bicubic transform.
    """
    height, width = pixels.shape
    integer = shifts.floor()
    places = torch.arange(-1, width + 2) + integer[:, None].long()
    rows = pixels.gather(1, places.clamp_(0, width - 1)).view(torch.uint8)
    rows = rows.view(height, width + 3, 4).float()
    taps = _cubic_weights((shifts - integer).float()[:, None, None])
    moved = rows[:, :width] * taps[0]
    for tap in (1, 2, 3):
        moved.addcmul_(rows[:, tap : tap + width], taps[tap])
    # Pillow truncates; the offset keeps float32 rounding from falling below an exact integer.
    moved = moved.add_(1e-3).clamp_(0, 255).to(torch.uint8).view(torch.int32)[:, :, 0]
    first = (-shifts - 0.5).ceil().int()[:, None]  # first column whose center maps inside the image
    columns = torch.arange(width, dtype=torch.int32)
    return torch.where((columns >= first) & (columns < first + width), moved, fill)


def _cubic_weights(d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of four neighbors, d past the second: Pillow's cubic kernel, a = -1."""
    d2, d3 = d * d, d * d * d
    return -d + 2 * d2 - d3, 1 - 2 * d2 + d3, d + d2 - d3, d3 - d2


def _along_rows(image: Image.Image, shifts: np.ndarray, fill: tuple[int, ...]) -> Image.Image:
    return _to_image(shift_rows(_words(image), torch.from_numpy(shifts), _word(fill)))


def _along_columns(image: Image.Image, shifts: np.ndarray, fill: tuple[int, ...]) -> Image.Image:
    columns = _words(image).t().contiguous()
    return _to_image(shift_rows(columns, torch.from_numpy(shifts), _word(fill)).t())


def _words(image: Image.Image) -> Tensor:
    """Return an RGB image as `(H, W)` int32. Pillow itself stores four bytes per pixel."""
    return torch.from_numpy(np.array(image.convert("RGBX"))).view(torch.int32)[:, :, 0]


def _word(color: tuple[int, ...]) -> int:
    return int(torch.tensor([*color, 255], dtype=torch.uint8).view(torch.int32))


def _to_image(words: Tensor) -> Image.Image:
    size = (words.shape[1], words.shape[0])
    return Image.frombuffer("RGBX", size, words.contiguous().numpy()).convert("RGB")
