"""Gallery of misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from smmix_pl.plots.style import SMALL, paper_style, shorten

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = 4


@paper_style
def error_gallery(images: Sequence[Tensor], errors: Sequence[tuple[str, str, float]]) -> Figure:
    """Plot a grid of images, each titled with its true and its predicted class.

    Args:
        images: `(3, H, W)` in [0, 1].
        errors: True class, predicted class, and confidence in the predicted class, in [0, 1].
    """
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(5.4, 1.65 * rows + 0.6), layout="constrained")
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, error in zip(figure.axes, images, errors, strict=False):
        true, predicted, confidence = error
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        title = f"{shorten(true, 22)}\n→ {shorten(predicted, 14)} ({confidence:.0%})"
        axes.set_title(title, size=SMALL, weight="normal", parse_math=False)
    figure.suptitle("Most confident errors: true class → predicted class (confidence)")
    return figure
