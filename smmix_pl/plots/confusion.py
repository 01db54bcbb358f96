"""Confused classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smmix_pl.plots.style import COLORS, SMALL, new_panel, paper_style, shorten

ROWS = 15
"""Number of class pairs in a figure, the worst first."""


@paper_style
def confusion_matrix(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot the confusion matrix in percent of each true class; readable for up to twenty classes.

    Args:
        confusion: Counts by true and predicted class, `(K, K)`.
        names: Class names.
    """
    figure, axes = new_panel((5.4, 4.6) if len(names) <= 10 else (7.2, 6.2))
    axes.grid(False)
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        value = percent[row, column]
        color, text = ("white" if value > 60 else "black"), f"{value:.0f}" if value >= 0.5 else "<1"
        axes.text(column, row, text, ha="center", va="center", color=color, size=SMALL)
    labels = [shorten(name, 40) for name in names]
    rotation = 90 if max(map(len, labels)) > 3 else 0
    axes.set_xticks(range(len(names)), labels, rotation=rotation, parse_math=False)
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.set_title("Confusion matrix (row-normalized)")
    bar = figure.colorbar(drawn, label="Images of the true class (%)")
    bar.ax.tick_params(labelsize=SMALL)
    return figure


@paper_style
def confused_pairs(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot the most frequent errors as pairs of true and predicted class.

    Args:
        confusion: Counts by true and predicted class, `(K, K)`.
        names: Class names.
    """
    errors = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    worst = np.argsort(errors, axis=None, kind="stable")[::-1][:ROWS]
    pairs = [divmod(int(cell), len(confusion)) for cell in worst if errors.flat[cell]]
    figure, axes = new_panel((5.4, 3.6))
    axes.barh(range(len(pairs)), [errors[pair] for pair in pairs], color=COLORS[1], alpha=0.7)
    labels = [f"{shorten(names[true], 28)} → {shorten(names[other], 28)}" for true, other in pairs]
    axes.set_yticks(range(len(pairs)), labels, parse_math=False)
    for row, pair in enumerate(pairs):
        fraction = errors[pair] / confusion[pair[0]].sum()
        axes.text(errors[pair], row, f" {fraction:.0%}", va="center", size=SMALL)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="Misclassified images, and their fraction of the true class")
    axes.set_title("Most confused pairs: true class → predicted class")
    return figure
