"""What all figures share."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANEL = (6.4, 4.8)
"""Inches of a figure."""

MARKERS = "osD^vPX*<>"


def panel() -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=PANEL, layout="constrained")
    return figure, tidy(figure.subplots())


def tidy(axes: Axes) -> Axes:
    """Only the two spines that carry ticks, and a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return axes


def short(name: str, length: int) -> str:
    """A name on one line, cut where it is longer than so many characters."""
    name = " ".join(name.replace("_", " ").split())
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def look(index: int) -> dict[str, Any]:
    """Color and marker of the index-th line; both differ, for those who see or print no color."""
    colors = colormaps["tab10"].colors  # type: ignore[attr-defined]
    return {"color": colors[index % len(colors)], "marker": MARKERS[index % len(MARKERS)]}
