"""Class by class: confusions, and how far confidence is from accuracy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smmix_pl.plots.style import PANEL, panel, short

ROWS = 15
"""Classes or pairs in a figure, the worst first."""


def confusion_matrix(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Share of each true class by predicted class, for up to twenty classes.

    Args:
        confusion: Counts by true and predicted class, ``(K, K)``.
        names: Of the classes.
    """
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = "white" if percent[row, column] > 60 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, size=8)
    labels = [short(name, 14) for name in names]
    turned = max(map(len, labels)) > 3
    axes.set_xticks(
        range(len(names)), labels, rotation=60 if turned else 0, size=8, parse_math=False
    )
    axes.set_yticks(range(len(names)), labels, size=8, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title("Confusion (images; color: share of the true class)")
    return figure


def confused_pairs(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """The most frequent errors, each as true and predicted class.

    Args:
        confusion: Counts by true and predicted class, ``(K, K)``.
        names: Of the classes.
    """
    errors = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    worst = np.argsort(errors, axis=None, kind="stable")[::-1][:ROWS]
    pairs = [divmod(int(cell), len(confusion)) for cell in worst if errors.flat[cell]]
    figure, axes = panel()
    share = [100 * errors[pair] / confusion[pair[0]].sum() for pair in pairs]
    axes.barh(range(len(pairs)), share, color="tab:red", alpha=0.6)
    labels = [f"{short(names[true], 18)} → {short(names[other], 18)}" for true, other in pairs]
    axes.set_yticks(range(len(pairs)), labels, size=8, parse_math=False)
    for row, pair in enumerate(pairs):
        axes.text(share[row], row, f" {errors[pair]}", va="center", size=8)
    axes.invert_yaxis()
    axes.set(xlabel="share of the true class (%); the number counts images")
    axes.set_title("Most confused pairs: true class → predicted class")
    return figure


def worst_calibrated(
    names: Sequence[str] | np.ndarray, confidence: np.ndarray, accuracy: np.ndarray
) -> Figure:
    """Predicted classes whose mean confidence is farthest from how often they are right.

    Args:
        names: Of the classes.
        confidence: Mean confidence of the predictions of each, ``(K,)``.
        accuracy: Share of them that is right, ``(K,)``.
    """
    worst = np.argsort(-abs(confidence - accuracy), kind="stable")[:ROWS]
    figure, axes = panel()
    for row, index in enumerate(worst):
        ends = 100 * confidence[index], 100 * accuracy[index]
        axes.plot(ends, (row, row), color="tab:gray", linewidth=2, zorder=1)
    rows = range(len(worst))
    axes.scatter(
        100 * confidence[worst], rows, color="tab:red", marker="s", label="mean confidence"
    )
    axes.scatter(100 * accuracy[worst], rows, color="tab:blue", marker="o", label="accuracy")
    labels = [short(str(names[index]), 24) for index in worst]
    axes.set_yticks(rows, labels, size=8, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="of the images predicted as the class (%)", xlim=(-2, 102))
    axes.set_title("Worst-calibrated classes", pad=24)
    above: dict[str, Any] = {
        "loc": "lower center",
        "bbox_to_anchor": (0.5, 1.0),
        "ncols": 2,
        "frameon": False,
    }
    axes.legend(fontsize="small", **above)
    return figure
