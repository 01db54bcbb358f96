"""Callbacks: what is measured, drawn and written beside the training step."""

from smmix_pl.callbacks.attacks import FGSM, PGD
from smmix_pl.callbacks.attention_quality import AttentionQuality
from smmix_pl.callbacks.calibration import Calibration, TemperatureScaling
from smmix_pl.callbacks.classes import Classes
from smmix_pl.callbacks.corruption_error import CorruptionError
from smmix_pl.callbacks.corruptions import Corruptions
from smmix_pl.callbacks.ema import EMA
from smmix_pl.callbacks.errors import ConfidentErrors
from smmix_pl.callbacks.evaluation import Evaluation
from smmix_pl.callbacks.finite import FiniteNumbers
from smmix_pl.callbacks.occlusion import Occlusion
from smmix_pl.callbacks.outliers import OutlierDetection, OutlierPrecision
from smmix_pl.callbacks.pictures import MixedPictures
from smmix_pl.callbacks.predictions import PredictionsCSV
from smmix_pl.callbacks.preemption import Preemption
from smmix_pl.callbacks.progress import StepBar
from smmix_pl.callbacks.results import Results
from smmix_pl.callbacks.shuffle import PatchShuffle
from smmix_pl.callbacks.summary import Summary
from smmix_pl.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "FGSM",
    "PGD",
    "AttentionQuality",
    "Calibration",
    "Classes",
    "ConfidentErrors",
    "CorruptionError",
    "Corruptions",
    "Evaluation",
    "FiniteNumbers",
    "MixedPictures",
    "Occlusion",
    "OutlierDetection",
    "OutlierPrecision",
    "PatchShuffle",
    "PredictionsCSV",
    "Preemption",
    "Results",
    "StepBar",
    "Summary",
    "TemperatureScaling",
    "Throughput",
]
