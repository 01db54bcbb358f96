"""Patches dropped from images or shuffled within them (Naseer et al., 2021).

B batch, C channels, H W pixels, P_h P_w patch grid. Every random choice belongs to an image's place
in the data set, not to its batch: two models see the same holes, at any batch size and on any
number of ranks.
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


def place_generator(seed: int, place: int) -> torch.Generator:
    """The source of an image's random choices, on the CPU, whatever the global one does.

    Args:
        seed: Any whole number.
        place: The image's index in its data set.
    """
    # torch's generator on the CPU reads the lower 32 bits only; multiples of the golden ratio keep
    # the places of small seeds at least a million apart
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + place) % 2**32)


def patch_grid(image_size: Grid, patch_size: int) -> Grid:
    """How many patches of a side an image has, (rows, columns).

    Raises:
        InputError: They do not fill it.
    """
    height, width = image_size
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise InputError(
            f"Occlusion.patch_size={patch_size}: does not divide the image size {height} x "
            f"{width}. Use a divisor of both sides, or null for the default."
        )
    return height // patch_size, width // patch_size


def random_order(grid: Grid, seed: int, places: Sequence[int]) -> Tensor:
    """For each image a random rank of each of its patches, ``(B, P_h, P_w)`` int64, 0 first."""
    count = grid[0] * grid[1]
    orders = [torch.randperm(count, generator=place_generator(seed, place)) for place in places]
    return torch.stack(orders).unflatten(1, grid)


def attention_order(attention: Tensor, grid: Grid, most_first: bool) -> Tensor:
    """The rank of each patch by the attention it gets.

    Args:
        attention: ``(B, G_h, G_w)``; averaged where a patch is several tokens, repeated where a
            token is several patches.
        grid: Patch grid.
        most_first: Rank 0 is the most attended patch, else the least.

    Returns:
        ``(B, P_h, P_w)`` int64; ties go by row-major order.
    """
    of_patches = F.adaptive_avg_pool2d(attention[:, None], grid).flatten(1)
    order = of_patches.argsort(dim=1, descending=most_first, stable=True)
    return order.argsort(dim=1).unflatten(1, grid)


def holes(order: Tensor, ratio: float, image_size: Grid, shift: bool = False) -> Tensor:
    """Pixels of the first patches of an order.

    Args:
        order: Ranks ``(B, P_h, P_w)``.
        ratio: round(ratio * P_h * P_w) patches are dropped.
        image_size: (H, W), multiples of the grid.
        shift: Move the holes half a patch down and right, off the model's own grid; what leaves the
            image is cut (the published protocol's ``random_offset_drop``).

    Returns:
        ``(B, H, W)`` bool.
    """
    dropped = order < round(ratio * order[0].numel())
    patch_h, patch_w = image_size[0] // order.shape[1], image_size[1] // order.shape[2]
    pixels = dropped.repeat_interleave(patch_h, 1).repeat_interleave(patch_w, 2)
    if not shift:
        return pixels
    down, right = patch_h // 2, patch_w // 2
    return F.pad(pixels, (right, -right, down, -down))


def filling(fill: Fill, images: Tensor, patch: int, seed: int, places: Sequence[int]) -> Tensor:
    """What is seen through the holes; broadcasts over normalized images ``(B, C, H, W)``.

    Args:
        fill: ``zero`` is 0 after normalisation, the published protocol; ``mean`` each image's own
            mean color; ``noise`` standard normal; ``blur`` the image under a Gaussian of half a
            patch.
        images: Normalized images.
        patch: Side of a patch in pixels.
        seed: Of the noise.
        places: Each image's index in its data set.
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
    """Images ``(B, C, H, W)`` with their patches moved.

    Args:
        images: H and W are multiples of the grid.
        order: ``(B, P_h, P_w)``; the patch at each position comes from the row-major position that
            the order gives there.
    """
    batch, channels, height, width = images.shape
    rows, columns = order.shape[1:]
    tiles = images.view(batch, channels, rows, height // rows, columns, width // columns)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, P_h * P_w, C, h, w)
    index = order.flatten(1)[:, :, None, None, None].expand_as(tiles)
    moved = tiles.gather(1, index).unflatten(1, (rows, columns))
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
