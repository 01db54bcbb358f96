"""Callbacks: what is measured, drawn and written beside the training step."""

from smmix_pl.callbacks.calibration import Calibration
from smmix_pl.callbacks.occlusion import Occlusion
from smmix_pl.callbacks.pictures import MixedPictures
from smmix_pl.callbacks.predictions import PredictionsCSV
from smmix_pl.callbacks.summary import Summary
from smmix_pl.callbacks.throughput import Throughput

__all__ = [
    "Calibration",
    "MixedPictures",
    "Occlusion",
    "PredictionsCSV",
    "Summary",
    "Throughput",
]
