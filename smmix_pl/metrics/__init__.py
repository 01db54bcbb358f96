"""Metrics as sums of fixed size: right on many ranks, and of bounded memory at a million images."""

from smmix_pl.metrics.accuracy import OUTLIER, SweepAccuracy, true_classes
from smmix_pl.metrics.class_counts import ClassCounts
from smmix_pl.metrics.histogram import AdaptiveCalibration, DetectionHistograms, coarse
from smmix_pl.metrics.probability import ClasswiseCalibration, ProperScores
from smmix_pl.metrics.reliability import Reliability, ReliabilityBins
from smmix_pl.metrics.temperature import TemperatureScan

__all__ = [
    "OUTLIER",
    "AdaptiveCalibration",
    "ClassCounts",
    "ClasswiseCalibration",
    "DetectionHistograms",
    "ProperScores",
    "Reliability",
    "ReliabilityBins",
    "SweepAccuracy",
    "TemperatureScan",
    "coarse",
    "true_classes",
]
