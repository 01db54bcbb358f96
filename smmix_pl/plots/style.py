"""Style shared by all figures: sizes, fonts, and colors that colorblind readers can tell apart."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PANEL = (4.0, 3.0)
"""Size in inches of a figure with one pair of axes: a column of a paper at 81%, and 640 x 480
pixels, a W&B panel."""
SQUARE = (4.0, 4.0)
SMALL = 7
"""Font size of tick labels, legends, and notes in points."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without its yellow, which is too light for lines."""
MARKERS = "osD^vPX*<>"
GRAY = "0.45"

paper_style = rc_context(
    {
        "figure.dpi": 160,
        "font.size": 8,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "figure.titlesize": 9,
        "figure.titleweight": "bold",
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "hatch.linewidth": 0.6,
    }
)
"""Decorator of functions that draw a figure."""


def new_panel(size: tuple[float, float] = PANEL) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, style_axes(figure.subplots())


def style_axes(axes: Axes) -> Axes:
    """Hide the top and right spines, and draw a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL)
    return axes


def add_note(figure: Figure, note: str) -> None:
    """Write one line below a figure: the model, the data, and the number of images."""
    figure.supxlabel(note, size=6, color=GRAY, parse_math=False)


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG. It is drawn once; `savefig` draws it twice, first for the layout."""
    content = BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def svg_of(figure: Figure) -> bytes:
    """Return a figure that `png_of` has drawn as SVG, with the same layout. Draw it no more."""
    content = BytesIO()
    figure.set_layout_engine("none")
    FigureCanvasSVG(figure).print_svg(content)
    return content.getvalue()


def line_style(index: int) -> dict[str, Any]:
    """Return color and marker of a line; markers keep lines distinct without color."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def draw_band(axes: Axes, x: Sequence[float] | np.ndarray, y: np.ndarray, **style: Any) -> None:
    """Draw the mean over seeds, and a band of one sample standard deviation if there are several.

    Args:
        axes: Where to draw.
        x: Positions, `(N,)`.
        y: Values of each seed, `(S, N)`.
        style: Style of the line.
    """
    mean = y.mean(axis=0)
    axes.plot(x, mean, **style)
    if len(y) > 1:
        spread = y.std(axis=0, ddof=1)
        axes.fill_between(x, mean - spread, mean + spread, color=style["color"], alpha=0.2, lw=0)


def shorten(name: str, length: int) -> str:
    """Return a name on one line, truncated to a number of characters."""
    name = " ".join(name.replace("_", " ").split())
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"
