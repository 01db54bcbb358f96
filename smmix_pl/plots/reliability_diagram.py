"""Reliability diagrams."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smmix_pl.plots.style import (
    COLORS,
    GRAY,
    SQUARE,
    line_style,
    new_panel,
    paper_style,
    style_axes,
)

Columns = Mapping[str, Sequence[float]]
"""`total`, `confidence` and `accuracy` of each bin."""
PERFECT: dict[str, Any] = {
    **{"color": "black", "linestyle": "--", "linewidth": 0.8, "label": "Perfect calibration"},
}


@paper_style
def reliability_diagram(
    total: Sequence[float], confidence: Sequence[float], accuracy: Sequence[float], title: str
) -> Figure:
    """Plot accuracy over confidence in equal-width bins, above a histogram of the confidences.

    Args:
        total: Number of predictions in each bin.
        confidence: Their mean confidence, in [0, 1].
        accuracy: Their accuracy, in [0, 1].
        title: Beginning of the title; ECE and the number of bins are appended.
    """
    figure = Figure(figsize=(4.0, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    count, conf, acc = (np.asarray(values) for values in (total, confidence, accuracy))
    _draw_bars(style_axes(top), count, 100 * conf, 100 * acc)
    top.set(ylabel="Accuracy (%)", ylim=(0, 100), xlim=(0, 100))
    top.set_box_aspect(1)
    top.set_title(f"{title}\nECE {_ece(count, conf, acc):.2%} ({len(count)} bins)")
    top.legend(loc="best", frameon=True, framealpha=0.8, edgecolor="none")
    width = 100 / len(count)
    fraction = 100 * count / max(count.sum(), 1)
    style_axes(bottom).bar(width * np.arange(len(count)), fraction, width, align="edge", color=GRAY)
    bottom.set_box_aspect(0.25)
    bottom.set(xlabel="Confidence (%)", ylabel="Images (%)")
    return figure


@paper_style
def reliability_curves(runs: Mapping[str, Columns], title: str) -> Figure:
    """Plot accuracy over mean confidence, one line per run.

    Args:
        runs: Columns of a reliability diagram by run name; empty bins are not drawn.
        title: Figure title.
    """
    figure, axes = new_panel(SQUARE)
    axes.plot([0, 100], [0, 100], **PERFECT)
    for index, (name, bins) in enumerate(runs.items()):
        count, conf, acc = (np.asarray(bins[key]) for key in ("total", "confidence", "accuracy"))
        filled = count > 0
        label = f"{name}: ECE {_ece(count, conf, acc):.2%}"
        axes.plot(100 * conf[filled], 100 * acc[filled], label=label, **line_style(index))
    axes.set(xlabel="Mean confidence (%)", ylabel="Accuracy (%)", xlim=(-2, 102), ylim=(-2, 102))
    axes.set_box_aspect(1)
    axes.set_title(title)
    axes.legend()
    return figure


def _ece(count: np.ndarray, conf: np.ndarray, acc: np.ndarray) -> float:
    return float((count * abs(acc - conf)).sum() / max(count.sum(), 1))


def _draw_bars(axes: Axes, count: np.ndarray, conf: np.ndarray, acc: np.ndarray) -> None:
    width = 100 / len(count)
    filled = count > 0
    left = (np.arange(len(count)) * width)[filled]
    conf, acc = conf[filled], acc[filled]
    pale: dict[str, Any] = {"color": COLORS[5], "alpha": 0.6}  # keeps the hatching visible
    axes.bar(left, acc, width, align="edge", edgecolor="white", label="Accuracy", **pale)
    hatched: dict[str, Any] = {"color": "none", "edgecolor": COLORS[1], "hatch": "////"}
    label = "Gap to mean confidence"
    axes.bar(left, conf - acc, width, acc, align="edge", linewidth=0.8, label=label, **hatched)
    axes.plot([0, 100], [0, 100], **PERFECT)
