"""Reliability diagrams."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smmix_pl.plots.style import PANEL, line_style, new_panel, style_axes

Columns = Mapping[str, Sequence[float]]
"""`total`, `confidence` and `accuracy` of each bin."""


def reliability_diagram(
    total: Sequence[float], confidence: Sequence[float], accuracy: Sequence[float], title: str
) -> Figure:
    """Plot accuracy over confidence in equal-width bins, above the number of images per bin.

    Args:
        total: Number of predictions in each bin.
        confidence: Their mean confidence, in [0, 1].
        accuracy: Their accuracy, in [0, 1].
        title: Beginning of the title; ECE and the number of bins are appended.
    """
    figure = Figure(figsize=PANEL, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    count, conf, acc = (np.asarray(values) for values in (total, confidence, accuracy))
    _draw_bars(style_axes(top), count, conf, acc)
    top.set(ylabel="Accuracy", ylim=(0, 1), xlim=(0, 1))
    top.set_title(f"{title}: ECE {_ece(count, conf, acc):.2%} ({len(count)} bins)", pad=26)
    legend: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3}
    top.legend(frameon=False, fontsize="small", **legend)
    _draw_histogram(style_axes(bottom), count)
    return figure


def reliability_curves(runs: Mapping[str, Columns], title: str) -> Figure:
    """Plot accuracy over mean confidence, one line per run.

    Args:
        runs: Columns of a reliability diagram by run name; empty bins are not drawn.
        title: Figure title.
    """
    figure, axes = new_panel()
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="Perfect")
    for index, (name, bins) in enumerate(runs.items()):
        count, conf, acc = (np.asarray(bins[key]) for key in ("total", "confidence", "accuracy"))
        filled = count > 0
        label = f"{name}: ECE {_ece(count, conf, acc):.2%}"
        axes.plot(conf[filled], acc[filled], label=label, markersize=5, **line_style(index))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="Mean confidence", ylabel="Accuracy")
    axes.set_title(title)
    axes.legend(loc="best", fontsize="small")
    return figure


def _ece(count: np.ndarray, conf: np.ndarray, acc: np.ndarray) -> float:
    return float((count * abs(acc - conf)).sum() / max(count.sum(), 1))


def _draw_bars(axes: Axes, count: np.ndarray, conf: np.ndarray, acc: np.ndarray) -> None:
    width = 1 / len(count)
    filled = count > 0
    left = (np.arange(len(count)) * width)[filled]
    conf, acc = conf[filled], acc[filled]
    pale: dict[str, Any] = {"color": "tab:blue", "alpha": 0.55}  # keeps the hatching visible
    axes.bar(left, acc, width, align="edge", edgecolor="white", label="Accuracy", **pale)
    hatched: dict[str, Any] = {"color": "none", "edgecolor": "tab:red", "hatch": "////"}
    label = "Gap to mean confidence"
    axes.bar(left, conf - acc, width, acc, align="edge", linewidth=0.8, label=label, **hatched)
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="Perfect")


def _draw_histogram(axes: Axes, count: np.ndarray) -> None:
    width = 1 / len(count)
    left = np.arange(len(count)) * width
    axes.bar(left, count, width, align="edge", color="tab:gray", edgecolor="white")
    axes.set(xlabel="Confidence (largest softmax probability)", ylabel="Images")
    axes.set_ylim(0, 1.3 * max(count.max(), 1))
    for x, n in zip(left, count, strict=True):
        if n:
            axes.text(x + width / 2, n, _count_label(n), ha="center", va="bottom", size=8)


def _count_label(count: float) -> str:
    return f"{count:.0f}" if count < 10_000 else f"{count / 1000:.0f}k"
