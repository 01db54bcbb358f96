"""Pictures of what a mixer does to images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from smmix_pl.plots.style import short

Window = tuple[int, int, int]
"""Row, column and side of a square window, in tokens."""


class MixedExample(NamedTuple):
    """What one row of a mixing picture shows.

    Attributes:
        target: Target image, ``(3, H, W)`` in [0, 1].
        source: Source image, likewise.
        mixed: Mixed image, likewise.
        target_attention: ``(G_h, G_w)``.
        source_attention: ``(G_h, G_w)``.
        covered: Window of the target that is pasted over.
        copied: Window of the source that is pasted.
        names: Class names of target and source.
        lam: Share of the target image.
        peers: What other mixers make of the two, by what to write above it.
    """

    target: Tensor
    source: Tensor
    mixed: Tensor
    target_attention: Tensor
    source_attention: Tensor
    covered: Window
    copied: Window
    names: tuple[str, str]
    lam: float
    peers: Mapping[str, Tensor] = {}


def mixing_figure(examples: Sequence[MixedExample]) -> Figure:
    """One row an example: target and source with attention and window, then the mixed image."""
    columns = 3 + len(examples[0].peers)
    figure = Figure(figsize=(2.4 * columns, 2.75 * len(examples)), layout="constrained")
    grid = figure.subplots(len(examples), columns, squeeze=False)
    for axes, example in zip(grid, examples, strict=True):
        target, source = (short(name, 26) for name in example.names)
        _picture(axes[0], example.target, f"target\n{target}")
        _attention(axes[0], example.target_attention, example.target, example.covered, "cyan")
        _picture(axes[1], example.source, f"source\n{source}")
        _attention(axes[1], example.source_attention, example.source, example.copied, "red")
        share = f"SMMix: {example.lam:.0%} {target}\n{1 - example.lam:.0%} {source}"
        _picture(axes[2], example.mixed, share)
        for place, (name, image) in zip(axes[3:], example.peers.items(), strict=True):
            _picture(place, image, name)
    figure.suptitle("attention (bright: high); blue: least attended, red: most attended", size=9)
    return figure


def _picture(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, size=9, parse_math=False)  # a class may be named $1$
    axes.set_axis_off()


def _attention(axes: Axes, attention: Tensor, image: Tensor, window: Window, color: str) -> None:
    height, width = image.shape[-2:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(attention.numpy(), cmap="inferno", alpha=0.45, extent=extent)
    row, column, side = window
    patch_h, patch_w = height / attention.shape[0], width / attention.shape[1]
    corner = (column * patch_w - 0.5, row * patch_h - 0.5)
    box = Rectangle(corner, side * patch_w, side * patch_h, fill=False, color=color, linewidth=2.5)
    axes.add_patch(box)
