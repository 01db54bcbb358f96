"""Images with their true and predicted classes as colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from smmix_pl.data.dense import IGNORED
from smmix_pl.plots.style import SMALL, paper_style, shorten

if TYPE_CHECKING:
    from torch import Tensor

OPACITY = 0.6
SHOWN = 12
"""Classes in the legend, the most frequent ones first."""


@paper_style
def segmentation_overlays(
    images: Sequence[Tensor],
    masks: Sequence[Tensor],
    predictions: Sequence[Tensor],
    names: Sequence[str],
) -> Figure:
    """Plot one row per image: the image, the true mask, and the prediction.

    Args:
        images: `(3, H, W)` in [0, 1].
        masks: True classes, `(H, W)`. 255 is drawn as the image itself.
        predictions: Predicted classes, `(H, W)`.
        names: Class names.
    """
    height, width = masks[0].shape
    rows = len(images)
    figure = Figure(figsize=(6.6, rows * 2.1 * height / width + 0.9), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False)
    for row, image, mask, prediction in zip(grid, images, masks, predictions, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        for axes, classes in zip(row, (None, mask, prediction), strict=True):
            axes.imshow(pixels if classes is None else _overlay(pixels, classes.numpy()))
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("image", "truth", "prediction"), strict=True):
        axes.set_title(title)
    counts = np.bincount(
        np.concatenate([mask.numpy().ravel() for mask in masks]), minlength=IGNORED + 1
    )[: len(names)]
    common = [int(index) for index in np.argsort(-counts)[:SHOWN] if counts[index]]
    figure.legend(
        handles=[Patch(color=_color(index), label=shorten(names[index], 14)) for index in common],
        loc="outside upper center",
        ncols=6,
        fontsize=SMALL,
    )
    return figure


def _color(index: int) -> tuple[float, float, float]:
    """Return the color of a class: ten of a palette, their pale siblings, then darker ones."""
    red, green, blue, _ = colormaps["tab20"]((2 * index + index % 20 // 10) % 20)
    shade = 0.75 ** (index // 20)
    return (red * shade, green * shade, blue * shade)


def _overlay(pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    palette = np.array([_color(index) for index in range(IGNORED + 1)], dtype=np.float32)
    weight = np.where(classes == IGNORED, 0.0, OPACITY)[..., None]
    mixed: np.ndarray = (1 - weight) * pixels + weight * palette[classes]
    return mixed.clip(0, 1)
