"""Accuracy under increasing image degradation, and score histograms."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smmix_pl.plots.style import SMALL, draw_band, line_style, new_panel, paper_style
from smmix_pl.runs.results import Curve

CONFIDENCES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 0.99999)
"""Labeled confidences on an axis of log odds."""


@paper_style
def accuracy_curves(
    curves: Mapping[str, Sequence[Curve]],
    title: str,
    x_label: str,
    published: Mapping[str, Curve] = {},
) -> Figure:
    """Plot top-1 accuracy over a quantity, one line per name.

    Args:
        curves: Curves of each seed by name, over the same x; accuracies in [0, 1]. Several seeds
            are drawn as their mean with a band of one standard deviation.
        title: Figure title.
        x_label: Quantity on the x-axis, with its unit.
        published: Published curves by name, drawn dashed and labeled as published.
    """
    figure, axes = new_panel()
    lines = [(name, seeds, "-") for name, seeds in curves.items()]
    lines += [(f"{name} (published)", [curve], "--") for name, curve in published.items()]
    for index, (name, seeds, dashes) in enumerate(lines):
        percent = 100 * np.array([curve.y for curve in seeds])
        draw_band(axes, seeds[0].x, percent, label=name, linestyle=dashes, **line_style(index))
    axes.set(title=title, xlabel=x_label, ylabel="Top-1 accuracy (%)")
    axes.set_ylim(max(0, axes.get_ylim()[0]), min(100.5, axes.get_ylim()[1]))
    points = np.unique([x for _, seeds, _ in lines for x in seeds[0].x])
    if len(points) > 1 and np.diff(points).min() >= np.ptp(points) / 20:
        axes.set_xticks(points, [f"{x:g}" for x in points])
    else:  # labels of the measured points would overlap
        axes.xaxis.set_major_locator(MaxNLocator(nbins=11))
    if len(lines) > 1:
        axes.legend()
    return figure


@paper_style
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
    drawn = axes.imshow(percent, cmap="cividis", aspect="auto")
    middle = (percent.min() + percent.max()) / 2
    for (row, column), value in np.ndenumerate(percent):
        color = "white" if value < middle else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, size=SMALL)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.tick_params(length=0)
    axes.set(title=title, xlabel=x_label)
    bar = figure.colorbar(drawn, label="Top-1 accuracy (%)")
    bar.ax.tick_params(labelsize=SMALL)
    return figure


@paper_style
def score_histograms(
    left: np.ndarray, fractions: np.ndarray, names: tuple[str, str], title: str, x_label: str
) -> Figure:
    """Plot two overlaid histograms of log odds, on an axis labeled with confidences.

    Args:
        left: Left edges of n bins of equal width, in log odds, `(n,)`.
        fractions: Fraction of the images of each kind in each bin, `(2, n)`.
        names: Names of the two kinds.
        title: Figure title.
        x_label: The score.
    """
    figure, axes = new_panel()
    width = left[1] - left[0]
    edges = np.append(left, left[-1] + width)
    for index, (name, percent) in enumerate(zip(names, 100 * fractions, strict=True)):
        color = line_style(index)["color"]
        axes.stairs(percent, edges, fill=True, alpha=0.3, color=color)
        axes.stairs(percent, edges, color=color, linewidth=1.4, label=name)
    filled = np.flatnonzero(fractions.sum(axis=0))
    low, high = left[filled[0]] - width, left[filled[-1]] + 2 * width
    ticks = {np.log(p / (1 - p)): f"{100 * p:g}" for p in CONFIDENCES}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set(title=title, xlabel=x_label, ylabel="Images (%)", xlim=(low, high))
    axes.legend()
    return figure
