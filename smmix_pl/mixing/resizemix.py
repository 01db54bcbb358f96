"""ResizeMix: a whole image, made small, over another (Qin et al., 2020)."""

import numpy as np
import torch
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend
from smmix_pl.mixing.regions import take_pixels


class ResizeMix(Mixer):
    """Shrink the source image and paste all of it over a random place of the target image.

    As in the authors' code (JayQine/ResizeMix, `run_apis/trainer.py`): one scale for the batch, a
    place for each image, shifted inside the border rather than clipped, and the nearest pixel of
    the source.

    Args:
        min_scale: Smallest side of the pasted image as a share of the image's; in (0, 1).
        max_scale: Largest side, likewise; the scale is uniform between them.
    """

    def __init__(self, min_scale: float = 0.1, max_scale: float = 0.8) -> None:
        if not 0 < min_scale <= max_scale < 1:
            raise InputError(
                f"ResizeMix's scales are min_scale {min_scale} and max_scale {max_scale}; they "
                "must satisfy 0 < min <= max < 1 (the paper: 0.1, 0.8)"
            )
        self.min_scale = min_scale
        self.max_scale = max_scale

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        batch, _, height, width = images.shape
        scale = rng.uniform(self.min_scale, self.max_scale)
        rows, inside_rows = _shrunk(height, scale, rng.integers(0, height, batch))
        columns, inside_columns = _shrunk(width, scale, rng.integers(0, width, batch))
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        if batch % 2:  # the middle image is its own source and stays as it is
            inside[batch // 2] = False
        rows, columns, inside = (
            each.to(images.device, non_blocking=True) for each in (rows, columns, inside)
        )
        small = take_pixels(images.flip(0), rows, columns)
        lam = 1.0 - int(height * scale) * int(width * scale) / (height * width)
        mixed = torch.where(~inside[:, None], images, small)  # the memory format of the first one
        return Mixed(mixed, blend(labels, lam), lam)


def _shrunk(length: int, scale: float, center: np.ndarray) -> tuple[Tensor, Tensor]:
    """Along one axis: the pixel that each pixel takes, and whether it is pasted; ``(B, L)``."""
    side = int(length * scale)
    start = np.clip(center - side // 2, 0, length - side)
    offset = torch.arange(length) - torch.from_numpy(start)[:, None]
    origin = (offset * (1.0 / scale)).long().clamp(0, length - 1)
    return origin, (offset >= 0) & (offset < side)
