"""Figure of what a mixer does to images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from smmix_pl.plots.style import shorten

if TYPE_CHECKING:
    from torch import Tensor

Window = tuple[int, int, int]
"""Row, column, and side of a square window, in tokens."""


class MixedExample(NamedTuple):
    """Content of one row of the mixing figure.

    Attributes:
        target: Target image, `(3, H, W)` in [0, 1].
        source: Source image, `(3, H, W)` in [0, 1].
        mixed: Mixed image, `(3, H, W)` in [0, 1].
        target_attention: Guide attention of the target image, `(G_h, G_w)`.
        source_attention: Guide attention of the source image, `(G_h, G_w)`.
        covered: Window of the target image that is replaced.
        copied: Window of the source image that is pasted.
        names: Class names of target and source.
        lam: Mixing ratio: fraction of the target image, in [0, 1].
        peers: The same pair mixed by other mixers, by column title.
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
    """Plot one row per example: target and source with attention and window, then mixed images."""
    columns = 3 + len(examples[0].peers)
    figure = Figure(figsize=(2.4 * columns, 2.75 * len(examples)), layout="constrained")
    grid = figure.subplots(len(examples), columns, squeeze=False)
    for axes, example in zip(grid, examples, strict=True):
        target, source = (shorten(name, 26) for name in example.names)
        _draw_image(axes[0], example.target, f"Target\n{target}")
        _draw_attention(axes[0], example.target_attention, example.target, example.covered, "cyan")
        _draw_image(axes[1], example.source, f"Source\n{source}")
        _draw_attention(axes[1], example.source_attention, example.source, example.copied, "red")
        title = f"SMMix: {example.lam:.0%} {target}\n{1 - example.lam:.0%} {source}"
        _draw_image(axes[2], example.mixed, title)
        for peer_axes, (name, image) in zip(axes[3:], example.peers.items(), strict=True):
            _draw_image(peer_axes, image, name)
    caption = "Guide attention (brighter = higher). Blue: region replaced. Red: region pasted."
    figure.suptitle(caption, size=9)
    return figure


def _draw_image(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, size=9, parse_math=False)  # a class name may be $1$
    axes.set_axis_off()


def _draw_attention(
    axes: Axes, attention: Tensor, image: Tensor, window: Window, color: str
) -> None:
    height, width = image.shape[-2:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(attention.numpy(), cmap="inferno", alpha=0.45, extent=extent)
    row, column, side = window
    patch_h, patch_w = height / attention.shape[0], width / attention.shape[1]
    corner = (column * patch_w - 0.5, row * patch_h - 0.5)
    box = Rectangle(corner, side * patch_w, side * patch_h, fill=False, color=color, linewidth=2.5)
    axes.add_patch(box)
