"""Figures, from numbers to matplotlib; no state and no files."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from smmix_pl.metrics import Reliability


def reliability_diagram(bins: Reliability, title: str) -> Figure:
    """Accuracy against confidence, over a histogram of the confidences.

    Args:
        bins: The diagram's numbers.
        title: Drawn above.
    """
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    count, confidence, accuracy = (values.cpu().numpy() for values in bins)
    n_bins = len(count)
    left, width = np.arange(n_bins) / n_bins, 1 / n_bins
    filled = count > 0
    top.bar(
        left[filled], accuracy[filled], width, align="edge", edgecolor="white", label="accuracy"
    )
    gap = confidence - accuracy
    top.bar(
        left[filled],
        gap[filled],
        width,
        bottom=accuracy[filled],
        align="edge",
        color="tab:red",
        alpha=0.35,
        label="gap to confidence",
    )
    top.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="perfect")
    top.set(title=title, ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    top.legend(loc="upper left")
    ece = f"ECE {100 * float(bins.ece):.2f}%  ({n_bins} bins)"
    top.text(0.97, 0.04, ece, transform=top.transAxes, ha="right")
    bottom.bar(left, 100 * count / max(count.sum(), 1), width, align="edge", edgecolor="white")
    bottom.set(xlabel="confidence (largest softmax probability)", ylabel="images (%)")
    return figure


def occlusion_curve(ratios: Sequence[float], accuracies: Sequence[float], title: str) -> Figure:
    """Accuracy against the share of patches that is dropped.

    Args:
        ratios: Shares of patches in [0, 1].
        accuracies: Top-1 accuracy in [0, 1] at each ratio.
        title: Drawn above.
    """
    figure = Figure(figsize=(5.6, 4), layout="constrained")
    axes = figure.subplots()
    percent = [100 * ratio for ratio in ratios]
    axes.plot(percent, [100 * accuracy for accuracy in accuracies], marker="o")
    axes.set(title=title, xlabel="patches dropped at random (%)", ylabel="top-1 accuracy (%)")
    axes.set(xlim=(-2, 102), ylim=(0, 102))
    axes.grid(alpha=0.3)
    return figure


Window = tuple[int, int, int]
"""Row, column and side of a square window, in tokens."""


class MixedExample(NamedTuple):
    """What one row of a mixing picture shows.

    Attributes:
        target: Target image, ``(3, H, W)`` in [0, 1].
        source: Source image, likewise.
        mixed: Mixed image, likewise.
        target_attention: ``(G_h, G_w)``.
        source_attention: ``(G_h, G_w)``.
        covered: Window of the target that is pasted over.
        copied: Window of the source that is pasted.
        names: Class names of target and source.
        lam: Share of the target image.
    """

    target: Tensor
    source: Tensor
    mixed: Tensor
    target_attention: Tensor
    source_attention: Tensor
    covered: Window
    copied: Window
    names: tuple[str, str]
    lam: float


def mixing_figure(examples: Sequence[MixedExample]) -> Figure:
    """One row an example: target and source with attention and window, then the mixed image."""
    figure = Figure(figsize=(7.2, 2.6 * len(examples)), layout="constrained")
    grid = figure.subplots(len(examples), 3, squeeze=False)
    for axes, example in zip(grid, examples, strict=True):
        target, source = example.names
        _picture(axes[0], example.target, f"target: {target}")
        _attention(axes[0], example.target_attention, example.target, example.covered, "cyan")
        _picture(axes[1], example.source, f"source: {source}")
        _attention(axes[1], example.source_attention, example.source, example.copied, "red")
        share = f"{example.lam:.0%} {target}, {1 - example.lam:.0%} {source}"
        _picture(axes[2], example.mixed, share)
    figure.suptitle("attention (bright: high); blue: least attended, red: most attended", size=9)
    return figure


def _picture(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, size=9)
    axes.set_axis_off()


def _attention(axes: Axes, attention: Tensor, image: Tensor, window: Window, colour: str) -> None:
    height, width = image.shape[-2:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(attention.numpy(), cmap="inferno", alpha=0.45, extent=extent)
    row, column, side = window
    patch_h, patch_w = height / attention.shape[0], width / attention.shape[1]
    corner = (column * patch_w - 0.5, row * patch_h - 0.5)
    box = Rectangle(corner, side * patch_w, side * patch_h, fill=False, color=colour, linewidth=2.5)
    axes.add_patch(box)
