"""Images with their true and detected objects: boxes, masks, class names, and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from smmix_pl.plots.style import COLORS, paper_style, shorten

if TYPE_CHECKING:
    from torch import Tensor

OPACITY = 0.35
LABEL = 5
"""Font size of class names in points."""
LUMINANCE = (0.299, 0.587, 0.114)
Objects = Mapping[str, "Tensor"]


@paper_style
def detection_overlays(
    images: Sequence[Tensor],
    targets: Sequence[Objects],
    predictions: Sequence[Objects],
    names: Sequence[str],
) -> Figure:
    """Plot one row per image: the true objects, with dashed crowds, and the detected ones.

    A class has the same color in both, and its name is beside each box, because colors repeat.

    Args:
        images: `(3, H, W)` in [0, 1].
        targets: `boxes` `(n, 4)` in pixels, `labels` `(n,)`, and `iscrowd` `(n,)` of the objects,
            with `masks` `(n, H, W)` or without.
        predictions: The same of the detections, with `scores` instead of `iscrowd`.
        names: Class names.
    """
    ratios = [image.shape[1] / image.shape[2] for image in images]
    figure = Figure(figsize=(6.6, 3.2 * sum(ratios) + 0.5), layout="constrained")
    grid = figure.subplots(len(images), 2, squeeze=False, height_ratios=ratios)
    for row, image, target, prediction in zip(grid, images, targets, predictions, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        _draw(row[0], pixels, target, names)
        _draw(row[1], pixels, prediction, names)
    for axes, title in zip(grid[0], ("truth", "prediction"), strict=True):
        axes.set_title(title)
    return figure


def _draw(axes: Axes, pixels: np.ndarray, objects: Objects, names: Sequence[str]) -> None:
    labels = objects["labels"].tolist()
    colors = [COLORS[label % len(COLORS)] for label in labels]
    if "masks" in objects:
        for color, mask in zip(colors, objects["masks"].numpy(), strict=True):
            weight = OPACITY * mask.astype(np.float32)[..., None]
            pixels = (1 - weight) * pixels + weight * np.array(to_rgb(color), np.float32)
    axes.imshow(pixels.clip(0, 1))
    axes.set_axis_off()
    scores = objects["scores"].tolist() if "scores" in objects else [None] * len(labels)
    crowds = objects["iscrowd"].tolist() if "iscrowd" in objects else [0] * len(labels)
    rows = zip(objects["boxes"].tolist(), labels, colors, scores, crowds, strict=True)
    for (left, top, right, bottom), label, color, score, crowd in rows:
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color)
        box.set(linestyle="--" if crowd else "-", linewidth=1.0)
        axes.add_patch(box)
        axes.text(
            *(left, top, shorten(names[label], 16) + ("" if score is None else f" {score:.2f}")),
            fontsize=LABEL,
            color="black" if np.dot(to_rgb(color), LUMINANCE) > 0.5 else "white",
            verticalalignment="bottom" if top > pixels.shape[0] / 20 else "top",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8},
            clip_on=True,
            parse_math=False,
        )
