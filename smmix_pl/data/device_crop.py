"""Random crops of a batch of equally large images on their device, resized as Pillow does."""

import numpy as np
import torch
from torch import Tensor

from smmix_pl.data.device_augment import exact_float

PRECISION = 2**22
"""Pillow rounds the weights of its 8-bit resize to multiples of `1 / PRECISION`."""


def crop_and_resize(images: Tensor, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Crop each image to its own box, and resize the crop with antialiasing.

    Crop and resize are one weighted sum over each axis: two batched matrix products of integers,
    exact in float64. Where the device has float64, the result equals Pillow's bit for bit, if
    Pillow resizes the width first. For some sizes it begins with the height and rounds otherwise.

    Args:
        images: `(B, 3, H, W)` uint8.
        boxes: Top, left, height, width, and 1 for bicubic or 0 for bilinear, `(B, 5)`. A box that
            leaves the image is padded with zeros; it must have the output size.
        size: Output (height, width).
    """
    real, device = exact_float(images.device), images.device
    inputs, outputs = images.shape[2:], torch.tensor(size, dtype=real)[:, None]
    numbers = torch.from_numpy(boxes.T).to(real)
    lengths = numbers[2:4]
    axes = torch.stack([numbers[:2], lengths, lengths / outputs, numbers[4].expand(2, -1)])
    start, length, step, bicubic = axes[..., None, None].to(device, non_blocking=True)
    any_bicubic = bool(boxes[:, 4].any())
    weights = _weights(start, length, step, bicubic, max(inputs), max(size), any_bicubic)
    rows = weights[0, :, None, : size[0], : inputs[0]]
    columns = weights[1, :, None, : size[1], : inputs[1]]
    return _rounded(rows @ _rounded(images.to(real) @ columns.mT)).to(torch.uint8)


def _weights(
    start: Tensor,
    length: Tensor,
    step: Tensor,
    bicubic: Tensor,
    inputs: int,
    outputs: int,
    any_bicubic: bool,
) -> Tensor:
    """Return the integer weights of input pixels in output pixels, `(2, B, outputs, inputs)`.

    Args:
        start: First pixel of each crop along each axis, `(2, B, 1, 1)`, as the next three.
        length: Number of pixels of each crop.
        step: Input pixels per output pixel.
        bicubic: 1 for bicubic, 0 for bilinear.
        inputs: Number of input pixels along the longer side.
        outputs: Number of output pixels along the longer side.
        any_bicubic: At least one crop is bicubic.
    """
    place = torch.arange(inputs, dtype=start.dtype, device=start.device) - start
    center = torch.arange(outputs, dtype=start.dtype, device=start.device)[:, None] + 0.5
    x = (place - center * step + 0.5).mul_(1 / step.clamp(min=1)).abs_()
    weights = (1 - x).clamp_(min=0)
    if any_bicubic:
        near = (1.5 * x - 2.5) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * -0.5
        cubic = torch.where(x < 1, near, torch.where(x < 2, far, 0))
        weights = torch.where(bicubic > 0, cubic, weights)
    weights.mul_((place >= 0) & (place < length))
    total = weights.sum(3, keepdim=True)
    return weights.div_(total + (total == 0)).mul_(PRECISION).round_()


def _rounded(sums: Tensor) -> Tensor:
    return sums.add_(PRECISION // 2).div_(PRECISION).floor_().clamp_(0, 255)
