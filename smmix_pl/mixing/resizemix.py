"""ResizeMix: paste a shrunken image over another one (Qin et al., 2020)."""

import numpy as np
import torch
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels
from smmix_pl.mixing.regions import take_pixels


class ResizeMix(Mixer):
    """Shrink the source image and paste it at a random place of the target image.

    As in the authors' code (JayQine/ResizeMix, `run_apis/trainer.py`), one scale is drawn per batch
    and one place per image. The pasted image is shifted inside the border instead of clipped, and
    shrunk by nearest neighbors.

    Args:
        min_scale: Minimum side of the pasted image as a fraction of the image side, in (0, 1).
        max_scale: Maximum side, as a fraction. The scale is uniform between the two.
    """

    def __init__(self, min_scale: float = 0.1, max_scale: float = 0.8) -> None:
        if not 0 < min_scale <= max_scale < 1:
            raise InputError(
                f"model.mixer.min_scale={min_scale}, model.mixer.max_scale={max_scale}: must "
                "satisfy 0 < min_scale <= max_scale < 1. The paper uses 0.1 and 0.8."
            )
        self.min_scale = min_scale
        self.max_scale = max_scale

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        batch, _, height, width = images.shape
        scale = rng.uniform(self.min_scale, self.max_scale)
        rows, inside_rows = _shrunk(height, scale, rng.integers(0, height, batch))
        columns, inside_columns = _shrunk(width, scale, rng.integers(0, width, batch))
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        if batch % 2:  # the middle image is its own source and stays unchanged
            inside[batch // 2] = False
        rows, columns, inside = (
            each.to(images.device, non_blocking=True) for each in (rows, columns, inside)
        )
        small = take_pixels(images.flip(0), rows, columns)
        lam = 1.0 - int(height * scale) * int(width * scale) / (height * width)
        # torch.where keeps the memory format of its first image argument.
        mixed = torch.where(~inside[:, None], images, small)
        return Mixed(mixed, blend_labels(labels, lam), lam)


def _shrunk(length: int, scale: float, center: np.ndarray) -> tuple[Tensor, Tensor]:
    """Map the pixels of one axis to source pixels.

    Returns:
        Source pixel of each pixel, and True where a pixel is pasted, both `(B, L)`.
    """
    side = int(length * scale)
    start = np.clip(center - side // 2, 0, length - side)
    offset = torch.arange(length) - torch.from_numpy(start)[:, None]
    origin = (offset * (1.0 / scale)).long().clamp(0, length - 1)
    return origin, (offset >= 0) & (offset < side)
