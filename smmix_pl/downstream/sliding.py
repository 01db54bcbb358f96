"""Segmentation of images that are larger than the training crops."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def whole(model: Callable[[Tensor], Tensor], images: Tensor, multiple: int) -> Tensor:
    """Return logits `(B, K, H, W)` of one pass over images, padded to a multiple of pixels."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % multiple, 0, -height % multiple))
    return model(padded)[..., :height, :width]


def slide(
    model: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int], overlap: float
) -> Tensor:
    """Return logits `(B, K, H, W)`, averaged over windows. Smaller images are padded.

    Args:
        model: Returns logits of images of the window's size.
        images: `(B, 3, H, W)`.
        window: (height, width) in pixels.
        overlap: Fraction of a window that the next one covers too, in [0, 1).
    """
    height, width = images.shape[-2:]
    rows, columns = window
    images = F.pad(images, (0, max(0, columns - width), 0, max(0, rows - height)))
    total: Tensor | None = None
    count = images.new_zeros(1, 1, *images.shape[-2:])
    for top in _starts(images.shape[-2], rows, overlap):
        for left in _starts(images.shape[-1], columns, overlap):
            place = (..., slice(top, top + rows), slice(left, left + columns))
            logits = model(images[place])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *images.shape[-2:])
            total[place] += logits
            count[place] += 1
    assert total is not None
    return (total / count)[..., :height, :width]


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Return the first pixels of windows that cover a length; the last one ends at its end."""
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]
