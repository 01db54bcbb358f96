"""Dropping patches from images and shuffling them (Naseer et al., 2021).

Random choices depend on the position of an image in the dataset, not on its batch. All models are
evaluated on the same holes, at any batch size and on any number of ranks.

Shapes: B batch, C channels, H and W pixels, (P_h, P_w) patch grid.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from smmix_pl.errors import InputError

Grid = tuple[int, int]
Fill = Literal["zero", "mean", "noise", "blur"]


Generators = Sequence[torch.Generator]
"""One generator per image of a batch."""


def place_generator(seed: int, place: int) -> torch.Generator:
    """Return the CPU generator of an image's random choices, independent of the global one.

    Args:
        seed: Any integer.
        place: Index of the image in its dataset.
    """
    # torch's CPU generator uses only the lower 32 bits. Multiples of the golden ratio keep the
    # places of small seeds at least a million apart.
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + place) % 2**32)


def patch_grid(image_size: Grid, patch_size: int) -> Grid:
    """Return the number of patches of an image, (rows, columns).

    Args:
        image_size: (H, W) in pixels.
        patch_size: Side of a patch in pixels.

    Raises:
        InputError: The image size is not a multiple of the patch size.
    """
    height, width = image_size
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise InputError(
            f"Occlusion.patch_size={patch_size}: does not divide the image size {height} x "
            f"{width}. Use a divisor of both sides, or null for the default."
        )
    return height // patch_size, width // patch_size


def random_order(grid: Grid, seed: int, places: Sequence[int]) -> Tensor:
    """Return a random rank for each patch of each image, `(B, P_h, P_w)` int64, 0 first."""
    count = grid[0] * grid[1]
    orders = [torch.randperm(count, generator=place_generator(seed, place)) for place in places]
    return torch.stack(orders).unflatten(1, grid)


def attention_order(attention: Tensor, grid: Grid, most_first: bool) -> Tensor:
    """Return the rank of each patch by the attention it receives.

    Args:
        attention: Attention of each token, `(B, G_h, G_w)`. It is averaged if a patch covers
            several tokens, and repeated if a token covers several patches.
        grid: Patch grid.
        most_first: Rank 0 is the most attended patch; otherwise the least attended.

    Returns:
        `(B, P_h, P_w)` int64. Ties are ranked in row-major order.
    """
    of_patches = F.adaptive_avg_pool2d(attention[:, None], grid).flatten(1)
    order = of_patches.argsort(dim=1, descending=most_first, stable=True)
    return order.argsort(dim=1).unflatten(1, grid)


def holes(order: Tensor, ratio: float, image_size: Grid, shift: bool = False) -> Tensor:
    """Return a mask of the pixels of the first patches of an order.

    Args:
        order: Ranks, `(B, P_h, P_w)`.
        ratio: Fraction of patches to drop, rounded to a number of patches.
        image_size: (H, W), multiples of the grid.
        shift: Shift the holes by half a patch down and right, off the model's own grid. Pixels
            outside the image are cropped (`random_offset_drop` of the published protocol).

    Returns:
        `(B, H, W)` bool.
    """
    dropped = order < round(ratio * order[0].numel())
    patch_h, patch_w = image_size[0] // order.shape[1], image_size[1] // order.shape[2]
    pixels = dropped.repeat_interleave(patch_h, 1).repeat_interleave(patch_w, 2)
    if not shift:
        return pixels
    down, right = patch_h // 2, patch_w // 2
    return F.pad(pixels, (right, -right, down, -down))


def filling(fill: Fill, images: Tensor, patch: int, seed: int, places: Sequence[int]) -> Tensor:
    """Return the content of the holes, which broadcasts over `(B, C, H, W)`.

    Args:
        fill: `zero` is 0 after normalization (the published protocol), `mean` is the mean color of
            each image, `noise` is standard normal, and `blur` is the image blurred with a sigma of
            half a patch.
        images: Normalized images, `(B, C, H, W)`.
        patch: Side of a patch in pixels.
        seed: Seed of the noise.
        places: Index of each image in its dataset.
    """
    if fill == "zero":
        return images.new_zeros(())
    if fill == "mean":
        return images.mean(dim=(2, 3), keepdim=True)
    if fill == "blur":
        radius = min(patch, min(images.shape[2:]) - 1)
        return gaussian_blur(images, 2 * radius + 1, patch / 2)
    drawn = [torch.randn(images.shape[1:], generator=place_generator(seed, at)) for at in places]
    return torch.stack(drawn).to(images)


def shuffle_patches(images: Tensor, order: Tensor) -> Tensor:
    """Rearrange the patches of images.

    Args:
        images: `(B, C, H, W)`, with H and W multiples of the grid.
        order: `(B, P_h, P_w)`, the row-major source position of the patch at each position.

    Returns:
        `(B, C, H, W)`.
    """
    batch, channels, height, width = images.shape
    rows, columns = order.shape[1:]
    tiles = images.view(batch, channels, rows, height // rows, columns, width // columns)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, P_h * P_w, C, h, w)
    index = order.flatten(1)[:, :, None, None, None].expand_as(tiles)
    moved = tiles.gather(1, index).unflatten(1, (rows, columns))
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
