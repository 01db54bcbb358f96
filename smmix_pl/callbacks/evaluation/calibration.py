"""Calibration during validation and test, before and after temperature scaling."""

from typing import ClassVar

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.checks import in_range
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.metrics import (
    AdaptiveCalibration,
    ClasswiseCalibration,
    ProperScores,
    Reliability,
    ReliabilityBins,
    TemperatureScan,
)
from smmix_pl.module import SMMixModule
from smmix_pl.plots import reliability_diagram
from smmix_pl.runs.results import EvalResult


class Calibration(Evaluation):
    """Logs calibration errors, NLL and Brier score, and draws the reliability diagram.

    Logged keys, each for `val` and `test`, all in [0, 1] except the last two:
        `test/ece`, `test/mce`: Expected and maximum calibration error.
        `test/adaptive_ece`, `test/classwise_ece`: ECE in bins of equal mass, and per class.
        `test/ece_openmixup_10`: ECE as the OpenMixup toolbox computes it; with 10 bins only. See
            `Reliability.sorted_ece`.
        `test/nll`: Negative log-likelihood in nats.
        `test/brier`: Brier score, in [0, 2].

    Args:
        n_bins: Number of confidence bins. Any number except the usual 15 is part of the key
            (`test/ece_10`), because values with different numbers of bins are not comparable.
    """

    stages: ClassVar[tuple[str, ...]] = ("val", "test")

    def __init__(self, n_bins: int = 15) -> None:
        _check_bins("Calibration", n_bins)
        self.n_bins = n_bins

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the metrics."""
        self.bins = on_device(ReliabilityBins(self.n_bins), model)
        self.adaptive = on_device(AdaptiveCalibration(self.n_bins), model)
        evaluated = len(require_image_data(trainer).class_subset or range(model.num_classes))
        classwise = ClasswiseCalibration(model.num_classes, self.n_bins, evaluated)
        self.classwise = on_device(classwise, model)
        self.scores = on_device(ProperScores(), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        classes = batch.classes
        for metric in (self.bins, self.adaptive, self.classwise, self.scores):
            metric.update(batch.logits, classes)

    def compute(self, images: int) -> EvalResult:
        """Return all metrics, and the data of the reliability diagram."""
        reliability = self.bins.compute()
        binned = {
            "ece": reliability.ece,
            "adaptive_ece": self.adaptive.compute(),
            "classwise_ece": self.classwise.compute(),
            "mce": reliability.mce,
        }
        if self.n_bins == 10:
            binned["ece_openmixup"] = reliability.sorted_ece
        named = {name + _suffix(self.n_bins): value for name, value in binned.items()}
        scalars = {key: float(value) for key, value in (named | self.scores.compute()).items()}
        protocol = {"n_bins": self.n_bins, "bins": "(a, b] of equal width; adaptive: equal mass"}
        bins = {"reliability" + _suffix(self.n_bins): _columns(reliability)}
        return EvalResult(protocol, images, scalars, bins=bins)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the reliability diagram."""
        return {
            name: reliability_diagram(**bins, title="Reliability")
            for name, bins in result.bins.items()
        }


class TemperatureScaling(Evaluation):
    """Logs ECE and NLL after temperature scaling; `Calibration` logs them before.

    Images at even places of the test set are scaled by the temperature fitted on those at odd
    places, and vice versa (test-time cross-validation, Ashukha et al., 2020). No image is scaled by
    a temperature that it was used to fit, and no other data is needed.

    Logged keys:
        `test/ece_scaled`, `test/nll_scaled`: ECE and NLL after scaling.
        `test/temperature`: Mean of the two temperatures, in 1/8 to 8.

    Args:
        n_bins: Number of confidence bins; any number except 15 is part of the key.
    """

    def __init__(self, n_bins: int = 15) -> None:
        _check_bins("TemperatureScaling", n_bins)
        self.n_bins = n_bins

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the temperature scan."""
        self.scan = on_device(TemperatureScan(self.n_bins), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self.scan.update(batch.logits, batch.classes, torch.tensor(batch.places) % 2)

    def compute(self, images: int) -> EvalResult:
        """Return ECE, NLL and reliability after scaling."""
        scaled = self.scan.compute()
        scalars = {
            "ece_scaled" + _suffix(self.n_bins): float(scaled.reliability.ece),
            "nll_scaled": float(scaled.nll),
            "temperature": float(scaled.temperature),
        }
        protocol = {"n_bins": self.n_bins, "fitted": "on the other half, by likelihood, 1/8 to 8"}
        bins = {"reliability_scaled" + _suffix(self.n_bins): _columns(scaled.reliability)}
        return EvalResult(protocol, images, scalars, bins=bins)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the reliability diagram after scaling."""
        title = f"Reliability at temperature {result.scalars['temperature']:.2f}"
        return {
            name: reliability_diagram(**bins, title=title) for name, bins in result.bins.items()
        }


def _suffix(n_bins: int) -> str:
    return "" if n_bins == 15 else f"_{n_bins}"


def _columns(reliability: Reliability) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in reliability._asdict().items()}


def _check_bins(callback: str, n_bins: int) -> None:
    in_range(f"{callback}.n_bins", n_bins, 1, hint="15 is usual")
