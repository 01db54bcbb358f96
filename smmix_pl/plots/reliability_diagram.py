"""Reliability diagrams."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smmix_pl.plots.style import PANEL, look, panel, tidy

Columns = Mapping[str, Sequence[float]]
"""total, confidence and accuracy of each bin."""


def reliability_diagram(
    total: Sequence[float], confidence: Sequence[float], accuracy: Sequence[float], title: str
) -> Figure:
    """Accuracy against confidence in equal-width bins, over the bins' counts.

    Args:
        total: Predictions in each bin.
        confidence: Their mean confidence, in [0, 1].
        accuracy: Their accuracy, in [0, 1].
        title: Drawn above.
    """
    figure = Figure(figsize=PANEL, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    count, conf, acc = (np.asarray(values) for values in (total, confidence, accuracy))
    gap = (count * abs(acc - conf)).sum() / max(count.sum(), 1)
    _bars(tidy(top), count, conf, acc)
    top.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    top.set_title(f"{title}: ECE {100 * gap:.2f}% ({len(count)} bins)", pad=26)
    above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3}
    top.legend(frameon=False, fontsize="small", **above)
    _histogram(tidy(bottom), count)
    return figure


def _bars(axes: Axes, count: np.ndarray, conf: np.ndarray, acc: np.ndarray) -> None:
    width = 1 / len(count)
    filled = count > 0
    left = (np.arange(len(count)) * width)[filled]
    conf, acc = conf[filled], acc[filled]
    pale: dict[str, Any] = {"color": "tab:blue", "alpha": 0.55}  # so that the hatching shows on it
    axes.bar(left, acc, width, align="edge", edgecolor="white", label="accuracy", **pale)
    hatched: dict[str, Any] = {"color": "none", "edgecolor": "tab:red", "hatch": "////"}
    label = "gap to mean confidence"
    axes.bar(left, conf - acc, width, acc, align="edge", linewidth=0.8, label=label, **hatched)
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfect")


def _histogram(axes: Axes, count: np.ndarray) -> None:
    width = 1 / len(count)
    left = np.arange(len(count)) * width
    axes.bar(left, count, width, align="edge", color="tab:gray", edgecolor="white")
    axes.set(xlabel="confidence (largest softmax probability)", ylabel="images")
    axes.set_ylim(0, 1.3 * max(count.max(), 1))
    for x, n in zip(left, count, strict=True):
        if n:
            axes.text(x + width / 2, n, _short(n), ha="center", va="bottom", size=8)


def _short(count: float) -> str:
    return f"{count:.0f}" if count < 10_000 else f"{count / 1000:.0f}k"


def reliability_curves(runs: Mapping[str, Columns], title: str) -> Figure:
    """Accuracy against mean confidence of several runs, one line each.

    Args:
        runs: Columns of a reliability diagram by the name of the run; empty bins are left out.
        title: Drawn above.
    """
    figure, axes = panel()
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfect")
    for index, (name, bins) in enumerate(runs.items()):
        count, conf, acc = (np.asarray(bins[key]) for key in ("total", "confidence", "accuracy"))
        filled = count > 0
        gap = (count * abs(acc - conf)).sum() / max(count.sum(), 1)
        label = f"{name}: ECE {100 * gap:.2f}%"
        axes.plot(conf[filled], acc[filled], label=label, markersize=5, **look(index))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean confidence", ylabel="accuracy")
    axes.set_title(title)
    axes.legend(loc="best", fontsize="small")
    return figure
