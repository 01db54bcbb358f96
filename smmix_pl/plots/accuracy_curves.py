"""Accuracy under increasing image degradation, and score histograms."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smmix_pl.plots.style import line_style, new_panel
from smmix_pl.runs.results import Curve


def accuracy_curves(
    curves: Mapping[str, Curve], title: str, x_label: str, published: Mapping[str, Curve] = {}
) -> Figure:
    """Plot top-1 accuracy over a quantity, one line per curve.

    Args:
        curves: Curves by name; accuracies in [0, 1].
        title: Figure title.
        x_label: Quantity on the x-axis, with its unit.
        published: Published curves by name, drawn dashed and labeled as published.
    """
    figure, axes = new_panel()
    lines = [(name, curve, "-") for name, curve in curves.items()]
    lines += [(f"{name} (published)", curve, "--") for name, curve in published.items()]
    for index, (name, curve, dashes) in enumerate(lines):
        percent = [100 * y for y in curve.y]
        style = line_style(index)
        axes.plot(curve.x, percent, label=name, linestyle=dashes, markersize=5, **style)
    axes.set(title=title, xlabel=x_label, ylabel="Top-1 accuracy (%)", ylim=(0, 102))
    points = np.unique([x for _, curve, _ in lines for x in curve.x])
    if len(points) > 1 and np.diff(points).min() >= np.ptp(points) / 20:
        axes.set_xticks(points, [f"{x:g}" for x in points])
    else:  # labels of the measured points would overlap
        axes.xaxis.set_major_locator(MaxNLocator(nbins=11))
    if len(lines) > 1:
        axes.legend(fontsize="small")
    return figure


def accuracy_heatmap(
    rows: Mapping[str, Sequence[float]], columns: Sequence[object], title: str, x_label: str
) -> Figure:
    """Plot top-1 accuracy as a colored table.

    Args:
        rows: Accuracies in [0, 1] by row name.
        columns: Column labels, one for each accuracy of a row.
        title: Figure title.
        x_label: Quantity that the columns vary.
    """
    figure, axes = new_panel()
    axes.grid(False)
    percent = 100 * np.array(list(rows.values()))
    axes.imshow(percent, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(percent):
        color = "white" if value < 60 else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, size=9)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.tick_params(length=0)
    axes.set(title=title, xlabel=x_label)
    return figure


def score_histograms(
    left: np.ndarray, fractions: np.ndarray, names: tuple[str, str], title: str, x_label: str
) -> Figure:
    """Plot two overlaid histograms.

    Args:
        left: Left edges of n bins of equal width, `(n,)`.
        fractions: Fraction of the images of each kind in each bin, `(2, n)`.
        names: Names of the two kinds.
        title: Figure title.
        x_label: Binned quantity.
    """
    figure, axes = new_panel()
    width = left[1] - left[0]
    for index, (name, percent) in enumerate(zip(names, 100 * fractions, strict=True)):
        color = line_style(index)["color"]
        axes.bar(left, percent, width, align="edge", alpha=0.55, color=color, label=name)
    filled = np.flatnonzero(fractions.sum(axis=0))
    axes.set_xlim(left[filled[0]] - width, left[filled[-1]] + 2 * width)
    axes.set(title=title, xlabel=x_label, ylabel="Images (%)")
    axes.legend()
    return figure
