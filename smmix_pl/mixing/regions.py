"""Geometry of square token windows: scores, selection and pasting.

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w tokens, r window side in tokens,
L length of one axis. A window is identified by its top-left token: *corners* are `(B, 2)` int64 of
(row, column). A side is one int for the batch, or a CPU tensor `(B,)` with one side per image.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.errors import InputError

Side = int | Tensor


def side_range(grid: tuple[int, int], min_ratio: float, max_ratio: float) -> tuple[int, int]:
    """Return the smallest and the largest window side on a token grid, both inclusive.

    Sides are ratios of the shorter grid side, rounded down as in the authors' code, and at least
    one token.

    Raises:
        InputError: The grid is a single row or column, which leaves no room for a target region.
    """
    shorter = min(grid)
    if shorter < 2:
        raise InputError(
            f"data.image_size: the {grid[0]} x {grid[1]} token grid is a single row or column, "
            "which leaves no room for regions. Use larger images or smaller patches."
        )
    smallest = max(1, int(shorter * min_ratio))
    return smallest, max(smallest, int(shorter * max_ratio))


def window_scores(attention: Tensor, side: int) -> Tensor:
    """Sum the attention in every r x r window, at stride 1.

    Args:
        attention: `(B, G_h, G_w)`.
        side: r, at most the shorter grid side.

    Returns:
        `(B, G_h - r + 1, G_w - r + 1)` float64, or float32 on MPS, which has no float64.
    """
    # float64 sums of float32 values of similar size are exact. Windows with equal attention get
    # equal scores in any summation order, so that ties go to the first window.
    exact = torch.float32 if attention.device.type == "mps" else torch.float64
    return F.avg_pool2d(attention.to(exact)[:, None], side, stride=1, divisor_override=1)[:, 0]


def most_attended(attention: Tensor, side: Side) -> Tensor:
    """Return the corners of the windows with the highest score; ties go to the first in row order.

    Args:
        attention: `(B, G_h, G_w)`.
        side: Window side.
    """
    return _chosen_corners(attention, side, torch.argmax)


def least_attended(attention: Tensor, side: Side) -> Tensor:
    """Return the corners of the windows with the lowest score; ties go to the first in row order.

    Args:
        attention: `(B, G_h, G_w)`.
        side: Window side.
    """
    return _chosen_corners(attention, side, torch.argmin)


def random_corners(
    batch: int, grid: tuple[int, int], side: Side, rng: np.random.Generator
) -> Tensor:
    """Draw the corners of windows placed uniformly at random, on the CPU."""
    highest = np.array(grid) - np.reshape(np.asarray(side), (-1, 1))
    return torch.from_numpy(rng.integers(0, highest, size=(batch, 2), endpoint=True))


def window_mask(corners: Tensor, side: Side, grid: tuple[int, int]) -> Tensor:
    """Mark the tokens inside each window.

    Returns:
        `(B, N)` bool, row-major over the grid, on the device of the corners.
    """
    rows = _inside(torch.arange(grid[0], device=corners.device), corners[:, 0], side)
    columns = _inside(torch.arange(grid[1], device=corners.device), corners[:, 1], side)
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def paste(
    target: Tensor, source: Tensor, to: Tensor, origin: Tensor, side: Side, grid: tuple[int, int]
) -> Tensor:
    """Paste a window of each source image over a window of its target image.

    Args:
        target: `(B, C, H, W)`. Left unchanged.
        source: `(B, C, H, W)`, same dtype and device.
        to: Corners of the windows to replace in the target images.
        origin: Corners of the windows to copy from the source images.
        side: Side of both windows.
        grid: Token grid, `(G_h, G_w)`.

    Returns:
        New images, `(B, C, H, W)`.

    Raises:
        InputError: The token grid does not divide the images.
    """
    patch_h, patch_w = patch = patch_size(target, grid)
    if isinstance(side, int) and target.is_contiguous():
        pasted = source.flatten(2).gather(2, _window_pixels(origin, side, patch, source))
        covered = _window_pixels(to, side, patch, target)
        return target.flatten(2).scatter(2, covered, pasted).view(target.shape)
    rows, inside_rows = _shifted(target.shape[2], patch_h, to[:, 0], origin[:, 0], side)
    columns, inside_columns = _shifted(target.shape[3], patch_w, to[:, 1], origin[:, 1], side)
    # Windows of several sizes: one gather moves each source window to its place. What it gathers
    # outside the windows is discarded by torch.where. No shape depends on the corners, so nothing
    # synchronizes with the device.
    moved = take_pixels(source, rows, columns)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    # torch.where keeps the memory format of its first image argument.
    return torch.where(~inside, target, moved)


def take_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Gather rows and columns of each image.

    Args:
        images: `(B, C, H, W)`.
        rows: Source row of each row, `(B, H)` int64.
        columns: Source column of each column, `(B, W)` int64.
    """
    pixels = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    pixels = pixels[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, pixels).view(images.shape)


def patch_size(images: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """Return the pixels per token, (rows, columns).

    Raises:
        InputError: The token grid does not divide the images.
    """
    height, width = images.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise InputError(
            f"images of {height} x {width} pixels: not divisible into the {grid[0]} x {grid[1]} "
            "token grid. Use images of a size that the model's patches divide."
        )
    return height // grid[0], width // grid[1]


def _chosen_corners(attention: Tensor, side: Side, choose: Callable[..., Tensor]) -> Tensor:
    if isinstance(side, Tensor):  # score the full batch once per distinct side; there are few
        by_side = {r: _chosen_corners(attention, r, choose) for r in set(side.tolist())}
        wanted = side.to(attention.device, non_blocking=True)[:, None]
        corners = torch.zeros_like(next(iter(by_side.values())))
        for r, of_side in by_side.items():
            corners = torch.where(wanted == r, of_side, corners)
        return corners
    scores = window_scores(attention, side)
    index = choose(scores.flatten(1), dim=1)
    return torch.stack((index // scores.shape[2], index % scores.shape[2]), dim=1)


def _window_pixels(corners: Tensor, side: int, patch: tuple[int, int], images: Tensor) -> Tensor:
    """Return the indices of each window's pixels in its flattened image, `(B, C, r * r * p)`."""
    rows, columns = (
        corners[:, axis : axis + 1] * size + torch.arange(side * size, device=corners.device)
        for axis, size in enumerate(patch)
    )
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    return places[:, None].expand(-1, images.shape[1], -1)


def _inside(position: Tensor, start: Tensor, side: Side) -> Tensor:
    """Return True where a position `(L,)` is inside the span of a window, `(B, L)` bool."""
    if isinstance(side, Tensor):
        side = side.to(start.device, non_blocking=True)[:, None]
    offset = position - start[:, None]
    return (offset >= 0) & (offset < side)


def _shifted(
    length: int, patch: int, to: Tensor, origin: Tensor, side: Side
) -> tuple[Tensor, Tensor]:
    """Map the pixels of one axis to source pixels.

    Returns:
        Source pixel of each pixel, and True where a pixel is pasted, both `(B, L)`.
    """
    pixel = torch.arange(length, device=to.device)
    inside = _inside(pixel // patch, to, side)
    return torch.where(inside, pixel + (origin - to)[:, None] * patch, pixel), inside
