"""Images that were taken for something else."""

from collections.abc import Sequence
from textwrap import shorten

from matplotlib.figure import Figure
from torch import Tensor

COLUMNS = 4


def errors_figure(images: Sequence[Tensor], titles: Sequence[tuple[str, str]]) -> Figure:
    """A grid of images, over each what it is and what it was taken for.

    Args:
        images: ``(3, H, W)`` in [0, 1].
        titles: The true class; and the predicted one with its confidence.
    """
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(7.2, 1.95 * rows + 0.4), layout="constrained")
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, (true, predicted) in zip(figure.axes, images, titles, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        is_, taken = shorten(true, 22, placeholder="…"), shorten(predicted, 24, placeholder="…")
        axes.set_title(f"is {is_}\ntaken for {taken}", size=8.5, parse_math=False)
    figure.suptitle("Errors of highest confidence", size=11)
    return figure
