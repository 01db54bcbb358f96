"""timm's augmentation operations, for batches of uint8 images on their device.

Each image has operations of its own, which timm's code drew (`drawn_operations.py`). kornia and
torchvision draw one set of operations per batch, and kornia and DALI use other magnitudes, so none
has timm's distribution. On the CPU, the results equal timm's on Pillow bit for bit.

Shapes: n images with the same operation, `(n, 3, H, W)`; arguments `(n,)`, float64 on the CPU.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Matrix = tuple[float, float, float, float, float, float]
"""Source x is `a x + b y + c`, source y is `d x + e y + f`, as in Pillow."""


def augment(images: Tensor, operations: np.ndarray, fill: tuple[int, ...]) -> Tensor:
    """Apply to each image its own operations, one after the other.

    Args:
        images: `(B, 3, H, W)` uint8. Changed in place.
        operations: `(B, L, 2)` float64: code in `CODES`, or -1 for none, and argument.
        fill: Color of what geometric operations move into the image.
    """
    color = torch.tensor(fill, dtype=torch.uint8).to(images.device, non_blocking=True)
    for layer in operations.swapaxes(0, 1):
        for code in np.unique(layer[:, 0][layer[:, 0] >= 0]):
            rows = np.flatnonzero(layer[:, 0] == code)
            index = torch.from_numpy(rows).to(images.device, non_blocking=True)
            name, kernel = NAMES[int(code)]
            arguments = torch.from_numpy(layer[rows, 1])
            if kernel is None:
                done = POINTWISE[name](images[index], arguments)
            else:
                matrix, along_x, along_y = WARPS[name]
                size = (images.shape[3], images.shape[2])
                matrices = [matrix(argument, *size) for argument in arguments.tolist()]
                done = _warp(images[index], matrices, color, kernel, along_x, along_y)
            images[index] = done
    return images


def exact_float(device: torch.device) -> torch.dtype:
    """Return float64, in which Pillow computes, or float32 where the device has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _per_image(arguments: Tensor, images: Tensor, dtype: torch.dtype) -> Tensor:
    return arguments.to(dtype).to(images.device, non_blocking=True)[:, None, None, None]


def _flip(images: Tensor, arguments: Tensor) -> Tensor:
    return images.flip(3)


def _invert(images: Tensor, arguments: Tensor) -> Tensor:
    return 255 - images


def _solarize(images: Tensor, arguments: Tensor) -> Tensor:
    threshold = _per_image(arguments, images, torch.int16)
    return torch.where(images < threshold, images, 255 - images)


def _solarize_add(images: Tensor, arguments: Tensor) -> Tensor:
    brighter = (images + _per_image(arguments, images, torch.int16)).clamp_(max=255)
    return torch.where(images < 128, brighter.to(torch.uint8), images)


def _posterize(images: Tensor, arguments: Tensor) -> Tensor:
    mask = 256 - 2 ** (8 - arguments.clamp(0, 8))
    return images & _per_image(mask, images, torch.uint8)


def _auto_contrast(images: Tensor, arguments: Tensor) -> Tensor:
    values = images.to(exact_float(images.device))
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    # A tensor, because torch would multiply the reciprocal by a Python number
    scale = torch.full_like(low, 255) / (high - low).clamp_(min=1)
    stretched = (values * scale + -low * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, arguments: Tensor) -> Tensor:
    n, channels = images.shape[:2]
    values = images.flatten(2).long()
    counts = torch.zeros(n, channels, 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    below = counts.cumsum(2) - counts
    brightest = values.amax(2, keepdim=True)
    step = below.gather(2, brightest) // 255
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    return torch.where(step > 0, table.gather(2, values), values).to(torch.uint8).view_as(images)


def _brightness(images: Tensor, arguments: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images[:, :1, :1, :1]), images, arguments)


def _contrast(images: Tensor, arguments: Tensor) -> Tensor:
    gray = _luma(images)
    mean = gray.sum((2, 3), keepdim=True).to(exact_float(images.device)) / gray[0].numel()
    return _blend((mean + 0.5).floor(), images, arguments)


def _color(images: Tensor, arguments: Tensor) -> Tensor:
    return _blend(_luma(images), images, arguments)


def _desaturate(images: Tensor, arguments: Tensor) -> Tensor:
    return _color(images, (1 - arguments).clamp(0, 1))


def _sharpness(images: Tensor, arguments: Tensor) -> Tensor:
    if min(images.shape[2:]) < 3:  # nothing but border
        return images
    center = images[:, :, 1:-1, 1:-1].int()
    around = F.avg_pool2d(images.float(), 3, stride=1, divisor_override=1).int()
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = ((2 * (around + 4 * center) + 13) // 26).to(torch.uint8)
    return _blend(smooth, images, arguments)


def _blend(base: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Interpolate, or extrapolate, from base to images in float32, as Pillow does."""
    base, factor = base.float(), _per_image(factors, images, torch.float32)
    return (base + factor * (images.float() - base)).clamp_(0, 255).to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """Return ITU-R 601 luma in Pillow's integer arithmetic, `(n, 1, H, W)`."""
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _rotation(degrees: float, width: int, height: int) -> Matrix:
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, -x * cos + -y * sin + x, -sin, cos, -x * -sin + -y * cos + y


def _warp(
    images: Tensor,
    matrices: Sequence[Matrix],
    fill: Tensor,
    kernel: str,
    along_x: bool,
    along_y: bool,
) -> Tensor:
    """Apply an affine map per image with Pillow's kernels, whose cubic has a = -1.

    Args:
        images: `(n, 3, H, W)` uint8.
        matrices: One per image.
        fill: Color outside of the image, `(3,)`.
        kernel: `bicubic` or `bilinear`.
        along_x: The map moves pixels along x. Otherwise their x needs no interpolation.
        along_y: The same for y.
    """
    _, channels, height, width = images.shape
    real = exact_float(images.device)
    maps = torch.tensor(matrices, dtype=real).to(images.device, non_blocking=True)
    a, b, c, d, e, f = maps.T[:, :, None, None]
    x = torch.arange(width, device=images.device, dtype=real) + 0.5
    y = torch.arange(height, device=images.device, dtype=real)[:, None] + 0.5
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    dx, dy = (x - 0.5 - left)[:, None], (y - 0.5 - top)[:, None]
    pixels = images.flatten(2)
    reach = (-1, 0, 1, 2) if kernel == "bicubic" else (0, 1)

    def pixel(row: int, column: int) -> Tensor:
        rows = (top.long() + row).clamp_(0, height - 1)
        places = rows * width + (left.long() + column).clamp_(0, width - 1)
        taken = pixels.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1))
        return taken.view_as(images).to(real)

    lines = [
        _interpolate([pixel(row, column) for column in (reach if along_x else (0,))], dx)
        for row in (reach if along_y else (0,))
    ]
    values = _interpolate(lines, dy).clamp_(0, 255).to(torch.uint8)
    return torch.where(inside[:, None], values, fill[:, None, None])


def _interpolate(taps: list[Tensor], d: Tensor) -> Tensor:
    """Interpolate between one, two, or four neighbors in Pillow's order of operations."""
    if len(taps) == 1:
        return taps[0]
    if len(taps) == 2:
        return taps[0] + (taps[1] - taps[0]) * d
    v1, v2, v3, v4 = taps
    return v2 + d * (-v1 + v3 + d * (2 * (v1 - v2) + v3 - v4 + d * (-v1 + v2 - v3 + v4)))


POINTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flip": _flip,
    "invert": _invert,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "posterize": _posterize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "brightness": _brightness,
    "contrast": _contrast,
    "color": _color,
    "desaturate": _desaturate,
    "sharpness": _sharpness,
}
"""Operations by the name of timm's function, and `flip`."""

WARPS: dict[str, tuple[Callable[[float, int, int], Matrix], bool, bool]] = {
    "rotate": (_rotation, True, True),
    "shear_x": (lambda factor, width, height: (1, factor, 0, 0, 1, 0), True, False),
    "shear_y": (lambda factor, width, height: (1, 0, 0, factor, 1, 0), False, True),
    "translate_x_abs": (lambda pixels, width, height: (1, 0, pixels, 0, 1, 0), True, False),
    "translate_y_abs": (lambda pixels, width, height: (1, 0, 0, 0, 1, pixels), False, True),
    "translate_x_rel": (lambda part, width, height: (1, 0, part * width, 0, 1, 0), True, False),
    "translate_y_rel": (lambda part, width, height: (1, 0, 0, 0, 1, part * height), False, True),
}
"""Matrix of each geometric operation for argument, width, and height; and where it moves pixels."""

NAMES: list[tuple[str, str | None]] = [
    *((name, None) for name in POINTWISE),
    *((name, kernel) for name in WARPS for kernel in ("bicubic", "bilinear")),
]
CODES = {name: code for code, name in enumerate(NAMES)}
"""Code of each operation and kernel; pointwise operations have no kernel."""
