"""Torchmetrics with states of fixed size, summed over ranks.

Memory does not grow with the number of images, and one reduction per metric is exact under DDP.

Shapes: B batch, K classes.
"""

from smmix_pl.metrics.accuracy import OUTLIER, SweepAccuracy, topk_accuracy, true_classes
from smmix_pl.metrics.box_overlap import BoxAccuracy
from smmix_pl.metrics.class_counts import ClassCounts
from smmix_pl.metrics.conformal import ConformalScores, prediction_sets
from smmix_pl.metrics.histogram import AdaptiveCalibration, DetectionHistograms, merge_bins
from smmix_pl.metrics.mask_overlap import MaskJaccard
from smmix_pl.metrics.probability import ClasswiseCalibration, ProperScores
from smmix_pl.metrics.reliability import Reliability, ReliabilityBins
from smmix_pl.metrics.selective_risk import RiskCoverage
from smmix_pl.metrics.temperature import TemperatureScan

__all__ = [
    "OUTLIER",
    "AdaptiveCalibration",
    "BoxAccuracy",
    "ClassCounts",
    "ClasswiseCalibration",
    "ConformalScores",
    "DetectionHistograms",
    "MaskJaccard",
    "ProperScores",
    "Reliability",
    "ReliabilityBins",
    "RiskCoverage",
    "SweepAccuracy",
    "TemperatureScan",
    "merge_bins",
    "prediction_sets",
    "topk_accuracy",
    "true_classes",
]
