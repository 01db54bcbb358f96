"""Figures, from numbers to matplotlib; no state and no files.

640 x 480 pixels on screen, the size of a W&B panel, and sharp as SVG in a paper.
"""

from smmix_pl.plots.calibration import reliability_curves, reliability_diagram
from smmix_pl.plots.mixing import MixedExample, mixing_figure
from smmix_pl.plots.robustness import accuracy_curves, accuracy_heatmap, score_histograms

__all__ = [
    "MixedExample",
    "accuracy_curves",
    "accuracy_heatmap",
    "mixing_figure",
    "reliability_curves",
    "reliability_diagram",
    "score_histograms",
]
