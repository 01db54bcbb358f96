"""Images that were taken for something else."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.plots.style import short

COLUMNS = 4


def errors_figure(images: Sequence[Tensor], errors: Sequence[tuple[str, str, float]]) -> Figure:
    """A grid of images, over each what it is and what it was taken for.

    Args:
        images: ``(3, H, W)`` in [0, 1].
        errors: The true class, the predicted one, and the confidence in it, in [0, 1].
    """
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(7.2, 1.95 * rows + 0.4), layout="constrained")
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, error in zip(figure.axes, images, errors, strict=False):
        true, predicted, confidence = error
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        title = f"{short(true, 24)}\ntaken for {short(predicted, 16)} ({confidence:.0%})"
        axes.set_title(title, size=8, parse_math=False)
    figure.suptitle("Errors of highest confidence", size=11)
    return figure
