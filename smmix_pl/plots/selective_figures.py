"""Figures of selective prediction and of conformal prediction sets."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from smmix_pl.plots.style import draw_band, line_style, new_panel, paper_style, style_axes
from smmix_pl.runs.results import Curve


@paper_style
def risk_coverage_curves(curves: Mapping[str, Sequence[Curve]], title: str) -> Figure:
    """Plot the error of the most confident images over their percentage, one line per name.

    Args:
        curves: Curves of each seed by name, over the same x in percent; errors in [0, 1].
        title: Figure title.
    """
    figure, axes = new_panel()
    for index, (name, seeds) in enumerate(curves.items()):
        percent = 100 * np.array([curve.y for curve in seeds])
        style = line_style(index) if len(seeds[0].x) < 20 else {"color": line_style(index)["color"]}
        draw_band(axes, seeds[0].x, percent, label=name, **style)
    axes.set(title=title, xlabel="Coverage: most confident images (%)", ylabel="Error (%)")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


@paper_style
def set_size_curves(
    levels: Sequence[float] | np.ndarray, sets: Mapping[str, Sequence[tuple[float, float]]]
) -> Figure:
    """Plot coverage and size of prediction sets over their target coverage, one line per score.

    Args:
        levels: Target coverages in (0, 1), `(N,)`.
        sets: Measured coverage in [0, 1] and mean size at each target, by the name of the score.
    """
    figure = Figure(figsize=(4.0, 5.2), layout="constrained")
    top, bottom = (style_axes(axes) for axes in figure.subplots(2, 1, sharex=True))
    target = 100 * np.asarray(levels)
    ideal = {"color": "black", "linestyle": "--", "linewidth": 0.8}
    top.plot(target, target, label="Target", **ideal)  # type: ignore[arg-type]
    for index, (name, measured) in enumerate(sets.items()):
        coverage, size = np.array(measured).T
        color = line_style(index)["color"]
        top.plot(target, 100 * coverage, color=color, label=name)
        bottom.plot(target, size, color=color, label=name)
    top.set(title="Conformal prediction sets", ylabel="Sets with the true class (%)")
    top.legend()
    bottom.set(xlabel="Target (%)", ylabel="Classes in a set")
    bottom.set_ylim(bottom=0)
    return figure
