"""Matplotlib figures of numbers. Nothing here writes files or keeps state.

Sizes, fonts, and colors are those of `style`.
"""

from smmix_pl.plots.accuracy_curves import accuracy_curves, accuracy_heatmap, score_histograms
from smmix_pl.plots.attention_figure import AttendedImage, attention_figure
from smmix_pl.plots.mixing_figure import MixedExample, MixedImage, mixing_figure
from smmix_pl.plots.reliability_diagram import reliability_curves, reliability_diagram
from smmix_pl.plots.selective_figures import risk_coverage_curves, set_size_curves

__all__ = [
    "AttendedImage",
    "MixedExample",
    "MixedImage",
    "accuracy_curves",
    "accuracy_heatmap",
    "attention_figure",
    "mixing_figure",
    "reliability_curves",
    "reliability_diagram",
    "risk_coverage_curves",
    "score_histograms",
    "set_size_curves",
]
