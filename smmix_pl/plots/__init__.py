"""Matplotlib figures of numbers. Nothing here writes files or keeps state.

Except for grids of images, figures are 640 x 480 pixels at 100 dpi, the size of a W&B panel.
"""

from smmix_pl.plots.accuracy_curves import accuracy_curves, accuracy_heatmap, score_histograms
from smmix_pl.plots.mixing_figure import MixedExample, mixing_figure
from smmix_pl.plots.reliability_diagram import reliability_curves, reliability_diagram

__all__ = [
    "MixedExample",
    "accuracy_curves",
    "accuracy_heatmap",
    "mixing_figure",
    "reliability_curves",
    "reliability_diagram",
    "score_histograms",
]
