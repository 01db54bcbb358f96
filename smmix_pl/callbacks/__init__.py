"""Callbacks: what is measured, drawn and written beside the training step."""

from smmix_pl.callbacks.evaluation.adversarial import FGSM, PGD, AutoAttack
from smmix_pl.callbacks.evaluation.base import Evaluation
from smmix_pl.callbacks.evaluation.calibration import Calibration, TemperatureScaling
from smmix_pl.callbacks.evaluation.common_corruptions import Corruptions
from smmix_pl.callbacks.evaluation.confident_errors import ConfidentErrors
from smmix_pl.callbacks.evaluation.corruption_error import CorruptionError
from smmix_pl.callbacks.evaluation.guide_quality import GuideQuality
from smmix_pl.callbacks.evaluation.knn import KNN
from smmix_pl.callbacks.evaluation.localization import Localization
from smmix_pl.callbacks.evaluation.occlusion import Occlusion
from smmix_pl.callbacks.evaluation.outliers import OutlierDetection, OutlierPrecision
from smmix_pl.callbacks.evaluation.patch_shuffle import PatchShuffle
from smmix_pl.callbacks.evaluation.per_class import PerClassMetrics
from smmix_pl.callbacks.evaluation.selective import ConformalSets, SelectivePrediction
from smmix_pl.callbacks.evaluation.tta import TTA
from smmix_pl.callbacks.output.detection_pictures import DetectionPictures
from smmix_pl.callbacks.output.predictions_csv import PredictionsCSV
from smmix_pl.callbacks.output.results_file import ResultsFile
from smmix_pl.callbacks.output.run_summary import RunSummary
from smmix_pl.callbacks.output.segmentation_pictures import SegmentationPictures
from smmix_pl.callbacks.output.summary_table import SummaryTable
from smmix_pl.callbacks.training.attention_quality import AttentionQuality
from smmix_pl.callbacks.training.ema import EMA
from smmix_pl.callbacks.training.mixed_images import MixedImages
from smmix_pl.callbacks.training.nonfinite_guard import NonFiniteGuard
from smmix_pl.callbacks.training.preemption import Preemption
from smmix_pl.callbacks.training.progress_bar import ThrottledProgressBar
from smmix_pl.callbacks.training.progress_lines import ProgressLines
from smmix_pl.callbacks.training.throughput import Throughput
from smmix_pl.callbacks.training.unfreezing import GradualUnfreezing

__all__ = [
    "EMA",
    "FGSM",
    "KNN",
    "PGD",
    "TTA",
    "AttentionQuality",
    "AutoAttack",
    "Calibration",
    "ConfidentErrors",
    "ConformalSets",
    "CorruptionError",
    "Corruptions",
    "DetectionPictures",
    "Evaluation",
    "GradualUnfreezing",
    "GuideQuality",
    "Localization",
    "MixedImages",
    "NonFiniteGuard",
    "Occlusion",
    "OutlierDetection",
    "OutlierPrecision",
    "PatchShuffle",
    "PerClassMetrics",
    "PredictionsCSV",
    "Preemption",
    "ProgressLines",
    "ResultsFile",
    "RunSummary",
    "SegmentationPictures",
    "SelectivePrediction",
    "SummaryTable",
    "TemperatureScaling",
    "ThrottledProgressBar",
    "Throughput",
]
