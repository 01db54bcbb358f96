"""Figure of what a model attends to, by readout, and of the windows and mixes that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smmix_pl.plots.mixing_figure import (
    COPIED,
    COVERED,
    MixedImage,
    Window,
    draw_attention,
    draw_image,
    draw_window,
)
from smmix_pl.plots.style import SMALL, paper_style, shorten

if TYPE_CHECKING:
    from torch import Tensor

TITLES = {
    "tokens": "Attention of all tokens",
    "class": "Attention of the class token",
    "similarity": "Similarity to the output",
}
"""Title of a map by readout."""
LEGEND = (
    "Maps are relative to their mean (1). Blue: least attended window, which is replaced. Orange: "
    "most attended window, which is pasted."
)


class AttendedImage(NamedTuple):
    """Content of one row of the attention figure.

    Attributes:
        name: Name of the image.
        partner: Name of the image that it is mixed with.
        image: `(3, H, W)` in [0, 1].
        attention: Attention or similarity of each token, `(G_h, G_w)`, by readout.
        windows: Least and most attended window, by readout.
        guide: Readout whose windows make the mixed image.
        mixed: The image with its partner pasted or blended in, by mixer.
    """

    name: str
    partner: str
    image: Tensor
    attention: Mapping[str, Tensor]
    windows: Mapping[str, tuple[Window, Window]]
    guide: str
    mixed: Mapping[str, MixedImage]


@paper_style
def attention_figure(images: Sequence[AttendedImage]) -> Figure:
    """Plot one row per image: the image, a map of each readout, and the mixed images."""
    columns = 1 + len(images[0].attention) + len(images[0].mixed)
    figure = Figure(figsize=(1.5 * columns, 1.95 * len(images) + 0.3), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, one in zip(grid, images, strict=True):
        name, partner = shorten(one.name, 16), shorten(one.partner, 16)
        draw_image(row[0], one.image, name)
        _draw_windows(row[0], one, one.guide)
        for axes, (readout, attention) in zip(row[1:], one.attention.items(), strict=False):
            draw_attention(axes, attention, TITLES[readout])
            _draw_windows(axes, one, readout)
        made = row[1 + len(one.attention) :]
        for axes, (mixer, mixed) in zip(made, one.mixed.items(), strict=True):
            draw_image(axes, mixed.image, mixer)
            of_image, of_partner = mixed.labels
            label = f"{name}: {of_image:.0%}\n{partner}: {of_partner:.0%}"
            axes.set_xlabel(label, size=SMALL, parse_math=False)
    figure.suptitle(LEGEND, size=SMALL, weight="normal")
    return figure


def _draw_windows(axes: Axes, one: AttendedImage, readout: str) -> None:
    least, most = one.windows[readout]
    tokens = one.attention[readout].shape
    draw_window(axes, least, tokens, COVERED)
    draw_window(axes, most, tokens, COPIED)
