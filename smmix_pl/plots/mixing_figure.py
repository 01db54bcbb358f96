"""Figure of what a mixer does to images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from smmix_pl.plots.style import COLORS, SMALL, paper_style, shorten

if TYPE_CHECKING:
    from torch import Tensor

Window = tuple[int, int, int]
"""Row, column, and side of a square window, in tokens."""
COVERED, COPIED = COLORS[5], COLORS[1]
"""Colors of the two windows: sky blue and vermilion."""
ATTENTION = "Attention is relative to uniform (1)."
WINDOWS = "Blue: least attended window of the target. Orange: most attended window of the source."
UNIT = (0, 1, 1, 0)
"""Extent of every image, so that windows can be drawn in fractions of it."""


class MixedImage(NamedTuple):
    """A mixed image with its labels.

    Attributes:
        image: `(3, H, W)` in [0, 1].
        labels: Label of the target class and of the source class, in [0, 1].
    """

    image: Tensor
    labels: tuple[float, float]


class MixedExample(NamedTuple):
    """Content of one row of the mixing figure.

    Attributes:
        target: Target image, `(3, H, W)` in [0, 1].
        source: Source image, `(3, H, W)` in [0, 1].
        target_attention: Guide attention of the target image, `(G_h, G_w)`.
        source_attention: Guide attention of the source image, `(G_h, G_w)`.
        names: Class names of target and source.
        mixed: The pair mixed by one mixer or several, by their names.
        covered: Window of the target image that the first mixer replaced, if it chose one.
        copied: Window of the source image that it pasted.
    """

    target: Tensor
    source: Tensor
    target_attention: Tensor
    source_attention: Tensor
    names: tuple[str, str]
    mixed: Mapping[str, MixedImage]
    covered: Window | None = None
    copied: Window | None = None


@paper_style
def mixing_figure(examples: Sequence[MixedExample]) -> Figure:
    """Plot one row per example: target and source, each with its attention, then mixed images."""
    columns = 4 + len(examples[0].mixed)
    figure = Figure(figsize=(1.36 * columns, 1.95 * len(examples) + 0.3), layout="constrained")
    grid = figure.subplots(len(examples), columns, squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        target, source = (shorten(name, 16) for name in example.names)
        draw_image(row[0], example.target, f"Target: {target}")
        draw_attention(row[1], example.target_attention)
        draw_image(row[2], example.source, f"Source: {source}")
        draw_attention(row[3], example.source_attention)
        tokens = example.target_attention.shape
        for axes in row[:2]:
            draw_window(axes, example.covered, tokens, COVERED)
        for axes in row[2:4]:
            draw_window(axes, example.copied, tokens, COPIED)
        for axes, (mixer, mixed) in zip(row[4:], example.mixed.items(), strict=True):
            draw_image(axes, mixed.image, mixer)
            of_target, of_source = mixed.labels
            label = f"{target}: {of_target:.0%}\n{source}: {of_source:.0%}"
            axes.set_xlabel(label, size=SMALL, parse_math=False)
    selected = any(example.covered for example in examples)
    figure.suptitle(
        f"{ATTENTION} {WINDOWS}" if selected else ATTENTION, size=SMALL, weight="normal"
    )
    return figure


def draw_image(axes: Axes, image: Tensor, title: str) -> None:
    """Draw an image `(3, H, W)` in [0, 1]."""
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", extent=UNIT, aspect="auto")
    axes.set_box_aspect(image.shape[1] / image.shape[2])
    axes.set_title(title, size=SMALL, weight="normal", parse_math=False)  # a class name may be $1$
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_attention(axes: Axes, attention: Tensor, title: str = "Attention") -> None:
    """Draw attention `(G_h, G_w)` relative to its mean, with a color bar."""
    relative = attention / attention.mean()
    drawn = axes.imshow(relative.numpy(), cmap="magma", extent=UNIT, aspect="auto")
    axes.set_box_aspect(attention.shape[0] / attention.shape[1])
    axes.set_axis_off()
    axes.set_title(title, size=SMALL, weight="normal")
    below = axes.inset_axes((0, -0.1, 1, 0.05))
    bar = axes.figure.colorbar(drawn, cax=below, orientation="horizontal")
    bar.ax.tick_params(labelsize=5, length=2, pad=1)
    bar.outline.set_visible(False)


def draw_window(axes: Axes, window: Window | None, tokens: Sequence[int], color: str) -> None:
    """Draw the outline of a window, if there is one, on an image or map of a grid of tokens."""
    if window is None:
        return
    row, column, side = window
    corner, size = (column / tokens[1], row / tokens[0]), (side / tokens[1], side / tokens[0])
    box = Rectangle(corner, *size, fill=False, color=color, linewidth=1.6, clip_on=False)
    box.set_path_effects([withStroke(linewidth=2.8, foreground="white")])
    axes.add_patch(box)
