"""Confused classes, and the difference between confidence and accuracy per class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smmix_pl.plots.style import PANEL, new_panel, shorten

ROWS = 15
"""Number of classes or class pairs in a figure, the worst first."""


def confusion_matrix(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot the confusion matrix; readable for up to twenty classes.

    Args:
        confusion: Counts by true and predicted class, `(K, K)`.
        names: Class names.
    """
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = "white" if percent[row, column] > 60 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, size=8)
    labels = [shorten(name, 14) for name in names]
    rotation = 60 if max(map(len, labels)) > 3 else 0
    axes.set_xticks(range(len(names)), labels, rotation=rotation, size=8, parse_math=False)
    axes.set_yticks(range(len(names)), labels, size=8, parse_math=False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.set_title("Confusion matrix (counts; color: fraction of true class)")
    return figure


def confused_pairs(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot the most frequent errors as pairs of true and predicted class.

    Args:
        confusion: Counts by true and predicted class, `(K, K)`.
        names: Class names.
    """
    errors = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    worst = np.argsort(errors, axis=None, kind="stable")[::-1][:ROWS]
    pairs = [divmod(int(cell), len(confusion)) for cell in worst if errors.flat[cell]]
    figure, axes = new_panel()
    percent = [100 * errors[pair] / confusion[pair[0]].sum() for pair in pairs]
    axes.barh(range(len(pairs)), percent, color="tab:red", alpha=0.6)
    labels = [f"{shorten(names[true], 18)} → {shorten(names[other], 18)}" for true, other in pairs]
    axes.set_yticks(range(len(pairs)), labels, size=8, parse_math=False)
    for row, pair in enumerate(pairs):
        axes.text(percent[row], row, f" {errors[pair]}", va="center", size=8)
    axes.invert_yaxis()
    axes.set(xlabel="Misclassified images of the true class (%), with counts")
    axes.set_title("Most confused pairs: true class → predicted class")
    return figure


def worst_calibrated(
    names: Sequence[str] | np.ndarray, confidence: np.ndarray, accuracy: np.ndarray
) -> Figure:
    """Plot the predicted classes with the largest gap between mean confidence and accuracy.

    Args:
        names: Class names.
        confidence: Mean confidence of the predictions of each class, `(K,)`.
        accuracy: Fraction of correct predictions, `(K,)`.
    """
    worst = np.argsort(-abs(confidence - accuracy), kind="stable")[:ROWS]
    figure, axes = new_panel()
    for row, index in enumerate(worst):
        ends = 100 * confidence[index], 100 * accuracy[index]
        axes.plot(ends, (row, row), color="tab:gray", linewidth=2, zorder=1)
    rows = range(len(worst))
    axes.scatter(
        100 * confidence[worst], rows, color="tab:red", marker="s", label="Mean confidence"
    )
    axes.scatter(100 * accuracy[worst], rows, color="tab:blue", marker="o", label="Accuracy")
    labels = [shorten(str(names[index]), 24) for index in worst]
    axes.set_yticks(rows, labels, size=8, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="Images predicted as the class (%)", xlim=(-2, 102))
    axes.set_title("Worst-calibrated classes", pad=24)
    legend: dict[str, Any] = {
        "loc": "lower center",
        "bbox_to_anchor": (0.5, 1.0),
        "ncols": 2,
        "frameon": False,
    }
    axes.legend(fontsize="small", **legend)
    return figure
