"""Accuracy against what is done to the images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smmix_pl.plots.style import look, panel
from smmix_pl.runs.results import Curve


def accuracy_curves(
    curves: Mapping[str, Curve], title: str, x_label: str, published: Mapping[str, Curve] = {}
) -> Figure:
    """Top-1 accuracy against a quantity, one line a curve.

    Args:
        curves: By name; accuracies in [0, 1].
        title: Drawn above.
        x_label: The quantity and its unit.
        published: Further curves, drawn dashed and named as published.
    """
    figure, axes = panel()
    lines = [(name, curve, "-") for name, curve in curves.items()]
    lines += [(f"{name} (published)", curve, "--") for name, curve in published.items()]
    for index, (name, curve, style) in enumerate(lines):
        percent = [100 * y for y in curve.y]
        axes.plot(curve.x, percent, label=name, linestyle=style, markersize=5, **look(index))
    axes.set(title=title, xlabel=x_label, ylabel="top-1 accuracy (%)", ylim=(0, 102))
    points = np.unique([x for _, curve, _ in lines for x in curve.x])
    if len(points) > 1 and np.diff(points).min() >= np.ptp(points) / 20:
        axes.set_xticks(points, [f"{x:g}" for x in points])
    else:  # measured points would overlap
        axes.xaxis.set_major_locator(MaxNLocator(nbins=11))
    if len(lines) > 1:
        axes.legend(fontsize="small")
    return figure


def accuracy_heatmap(
    rows: Mapping[str, Sequence[float]], columns: Sequence[object], title: str, x_label: str
) -> Figure:
    """Top-1 accuracy as a table in colors.

    Args:
        rows: Accuracies in [0, 1] by the row's name.
        columns: Labels, one for each accuracy of a row.
        title: Drawn above.
        x_label: What the columns are.
    """
    figure, axes = panel()
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
    left: np.ndarray, shares: np.ndarray, names: tuple[str, str], title: str, x_label: str
) -> Figure:
    """Two overlaid histograms.

    Args:
        left: Left edges of equal bins, ``(n,)``.
        shares: Share of each kind in each bin, ``(2, n)``.
        names: Of the two kinds.
        title: Drawn above.
        x_label: What is binned.
    """
    figure, axes = panel()
    width = left[1] - left[0]
    for index, (name, share) in enumerate(zip(names, 100 * shares, strict=True)):
        color = look(index)["color"]
        axes.bar(left, share, width, align="edge", alpha=0.55, color=color, label=name)
    seen = np.flatnonzero(shares.sum(axis=0))
    axes.set_xlim(left[seen[0]] - width, left[seen[-1]] + 2 * width)
    axes.set(title=title, xlabel=x_label, ylabel="share of images (%)")
    axes.legend()
    return figure
