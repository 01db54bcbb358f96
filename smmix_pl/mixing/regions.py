"""Square windows of tokens: their scores, the choice of one, and the paste. Pure tensor geometry.

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w tokens, r window side in tokens.
A window is named by its top left token: *corners* are ``(B, 2)`` int64 of (row, column). A side is
one int for the batch, or a CPU tensor ``(B,)`` with one for each image.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.errors import InputError

Side = int | Tensor


def side_range(grid: tuple[int, int], min_ratio: float, max_ratio: float) -> tuple[int, int]:
    """The smallest and the largest window side, both included, on a token grid.

    Ratios are of the grid's shorter side and rounded down, as in the authors' code; a side is at
    least one token.

    Raises:
        InputError: The grid is a single row or column, which leaves no room for a target region.
    """
    shorter = min(grid)
    if shorter < 2:
        raise InputError(
            f"a {grid[0]} x {grid[1]} token grid is too small to mix regions; "
            "use larger images or smaller patches"
        )
    smallest = max(1, int(shorter * min_ratio))
    return smallest, max(smallest, int(shorter * max_ratio))


def window_scores(attention: Tensor, side: int) -> Tensor:
    """Summed attention of every r x r window, stride 1.

    Args:
        attention: ``(B, G_h, G_w)``.
        side: r, at most the grid's shorter side.

    Returns:
        ``(B, G_h - r + 1, G_w - r + 1)`` float64 (float32 on Apple's GPUs, which have no other).
    """
    # float64 sums of float32 numbers of like size are exact: windows that are equal on paper score
    # equal here, so that the first one wins whatever the order of summation.
    exact = torch.float32 if attention.device.type == "mps" else torch.float64
    return F.avg_pool2d(attention.to(exact)[:, None], side, stride=1, divisor_override=1)[:, 0]


def most_attended(attention: Tensor, side: Side) -> Tensor:
    """Corners of the windows with the highest score; ties go to the first window, row by row.

    Args:
        attention: ``(B, G_h, G_w)``.
        side: Window side.
    """
    return _chosen_corners(attention, side, torch.argmax)


def least_attended(attention: Tensor, side: Side) -> Tensor:
    """Corners of the windows with the lowest score; ties go to the first window, row by row.

    Args:
        attention: ``(B, G_h, G_w)``.
        side: Window side.
    """
    return _chosen_corners(attention, side, torch.argmin)


def random_corners(
    batch: int, grid: tuple[int, int], side: Side, rng: np.random.Generator
) -> Tensor:
    """Corners, on the CPU, of windows placed uniformly at random."""
    highest = np.array(grid) - np.reshape(np.asarray(side), (-1, 1))
    return torch.from_numpy(rng.integers(0, highest, size=(batch, 2), endpoint=True))


def window_mask(corners: Tensor, side: Side, grid: tuple[int, int]) -> Tensor:
    """Which tokens lie inside each window.

    Returns:
        ``(B, N)`` bool, row-major over the grid, on the corners' device.
    """
    rows = _inside(torch.arange(grid[0], device=corners.device), corners[:, 0], side)
    columns = _inside(torch.arange(grid[1], device=corners.device), corners[:, 1], side)
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def paste(
    target: Tensor, source: Tensor, to: Tensor, origin: Tensor, side: Side, grid: tuple[int, int]
) -> Tensor:
    """Paste a window of each source image over a window of its target image.

    Args:
        target: ``(B, C, H, W)``; left unchanged.
        source: ``(B, C, H, W)``, same dtype and device.
        to: Corners of the windows that are covered.
        origin: Corners of the windows that are copied.
        side: Side of both windows.
        grid: Token grid ``(G_h, G_w)``.

    Returns:
        New images, ``(B, C, H, W)``.

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
    # Windows of several sizes: one gather moves each source window to its place; outside the
    # windows it gathers what torch.where then drops. All shapes are known before the corners are:
    # nothing waits for them.
    moved = take_pixels(source, rows, columns)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(~inside, target, moved)  # the memory format of the first one


def take_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Each pixel's value from a row and a column of its own image.

    Args:
        images: ``(B, C, H, W)``.
        rows: ``(B, H)`` int64, the row that each row is taken from.
        columns: ``(B, W)`` int64, likewise.
    """
    pixels = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    pixels = pixels[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, pixels).view(images.shape)


def patch_size(images: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """Pixels per token, (rows, columns).

    Raises:
        InputError: The token grid does not divide the images.
    """
    height, width = images.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise InputError(
            f"a {grid[0]} x {grid[1]} token grid does not divide images of {height} x {width} "
            "pixels; choose an image size that is a multiple of the grid"
        )
    return height // grid[0], width // grid[1]


def _chosen_corners(attention: Tensor, side: Side, choose: Callable[..., Tensor]) -> Tensor:
    if isinstance(side, Tensor):  # the whole batch for each side that occurs: there are few
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
    """Places of each window's pixels in its flattened image, ``(B, C, pixels)`` int64."""
    rows, columns = (
        corners[:, axis : axis + 1] * size + torch.arange(side * size, device=corners.device)
        for axis, size in enumerate(patch)
    )
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    return places[:, None].expand(-1, images.shape[1], -1)


def _inside(position: Tensor, start: Tensor, side: Side) -> Tensor:
    """Whether each position ``(L,)`` lies in each window's span: ``(B, L)`` bool."""
    if isinstance(side, Tensor):
        side = side.to(start.device, non_blocking=True)[:, None]
    offset = position - start[:, None]
    return (offset >= 0) & (offset < side)


def _shifted(
    length: int, patch: int, to: Tensor, origin: Tensor, side: Side
) -> tuple[Tensor, Tensor]:
    """Along one axis: the pixel that each pixel takes, and whether it is pasted; ``(B, L)``."""
    pixel = torch.arange(length, device=to.device)
    inside = _inside(pixel // patch, to, side)
    return torch.where(inside, pixel + (origin - to)[:, None] * patch, pixel), inside
