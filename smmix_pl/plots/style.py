"""Style shared by all figures."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANEL = (6.4, 4.8)
"""Figure size in inches."""

MARKERS = "osD^vPX*<>"


def new_panel() -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes."""
    figure = Figure(figsize=PANEL, layout="constrained")
    return figure, style_axes(figure.subplots())


def style_axes(axes: Axes) -> Axes:
    """Hide the top and right spines, and draw a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return axes


def shorten(name: str, length: int) -> str:
    """Return a name on one line, truncated to a number of characters."""
    name = " ".join(name.replace("_", " ").split())
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def line_style(index: int) -> dict[str, Any]:
    """Return color and marker of a line; markers keep lines distinct without color."""
    colors = colormaps["tab10"].colors  # type: ignore[attr-defined]
    return {"color": colors[index % len(colors)], "marker": MARKERS[index % len(MARKERS)]}
