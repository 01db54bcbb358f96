"""Calibration during validation and test, and what temperature scaling would gain."""

from typing import ClassVar

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.datamodule import image_data
from smmix_pl.errors import InputError
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
    """Logs ECE, adaptive and class-wise ECE, MCE, NLL and Brier score; draws the reliability.

    As ``val/ece``, ``test/adaptive_ece``, ``test/classwise_ece`` and so on, all in [0, 1] but
    ``nll`` (nats) and ``brier`` (0 to 2). With 10 bins it also logs ``ece_openmixup_10``, what the
    OpenMixup toolbox prints (see `Reliability.sorted_ece`).

    Args:
        n_bins: Bins of the confidence. 15 is the usual count; another count stands in the metric's
            name (``test/ece_10``), because numbers of different counts do not compare.
    """

    stages: ClassVar[tuple[str, ...]] = ("val", "test")

    def __init__(self, n_bins: int = 15) -> None:
        self.n_bins = checked_bins("Calibration", n_bins)

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        self.bins = on_device(ReliabilityBins(self.n_bins), model)
        self.adaptive = on_device(AdaptiveCalibration(self.n_bins), model)
        subset = image_data(trainer).class_subset
        among = None if subset is None else len(subset)
        classwise = ClasswiseCalibration(model.num_classes, self.n_bins, among)
        self.classwise = on_device(classwise, model)
        self.scores = on_device(ProperScores(), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        for metric in (self.bins, self.adaptive, self.classwise, self.scores):
            metric.update(batch.logits, batch.classes)

    def compute(self, images: int) -> EvalResult:
        """All of them, and the diagram's numbers."""
        reliability = self.bins.compute()
        binned = {
            "ece": reliability.ece,
            "adaptive_ece": self.adaptive.compute(),
            "classwise_ece": self.classwise.compute(),
            "mce": reliability.mce,
        }
        if self.n_bins == 10:
            binned["ece_openmixup"] = reliability.sorted_ece
        named = {name + suffix(self.n_bins): value for name, value in binned.items()}
        scalars = {key: float(value) for key, value in (named | self.scores.compute()).items()}
        protocol = {"n_bins": self.n_bins, "bins": "(a, b] of equal width; adaptive: equal mass"}
        bins = {"reliability" + suffix(self.n_bins): columns(reliability)}
        return EvalResult(protocol, images, scalars, bins=bins)

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The reliability diagram."""
        return {
            name: reliability_diagram(**bins, title="Calibration")
            for name, bins in report.bins.items()
        }


class TemperatureScaling(Evaluation):
    """Logs ECE and NLL after temperature scaling, beside those before from `Calibration`.

    As ``test/ece_scaled``, ``test/nll_scaled`` and ``test/temperature``. Images at even places of
    the test set are scaled by the temperature that fits those at odd places best, and the other way
    round (test-time cross-validation, Ashukha et al., 2020): no image is measured by a temperature
    that it helped to fit, and no further data is needed.

    Args:
        n_bins: Bins of the confidence; another count than 15 stands in the metric's name.
    """

    def __init__(self, n_bins: int = 15) -> None:
        self.n_bins = checked_bins("TemperatureScaling", n_bins)

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        self.scan = on_device(TemperatureScan(self.n_bins), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self.scan.update(batch.logits, batch.classes, torch.tensor(batch.places) % 2)

    def compute(self, images: int) -> EvalResult:
        """What scaling by one half's temperature does to the other."""
        scaled = self.scan.compute()
        scalars = {
            "ece_scaled" + suffix(self.n_bins): float(scaled.reliability.ece),
            "nll_scaled": float(scaled.nll),
            "temperature": float(scaled.temperature),
        }
        protocol = {"n_bins": self.n_bins, "fitted": "on the other half, by likelihood, 1/8 to 8"}
        bins = {"reliability_scaled" + suffix(self.n_bins): columns(scaled.reliability)}
        return EvalResult(protocol, images, scalars, bins=bins)

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The reliability diagram after scaling."""
        title = f"Calibration at temperature {report.scalars['temperature']:.2f}"
        return {
            name: reliability_diagram(**bins, title=title) for name, bins in report.bins.items()
        }


def suffix(n_bins: int) -> str:
    """What a bin count adds to a metric's name."""
    return "" if n_bins == 15 else f"_{n_bins}"


def columns(reliability: Reliability) -> dict[str, list[float]]:
    """A reliability diagram as plain lists."""
    return {name: values.tolist() for name, values in reliability._asdict().items()}


def checked_bins(owner: str, n_bins: int) -> int:
    """The number of bins.

    Raises:
        InputError: It is below 1.
    """
    if n_bins < 1:
        raise InputError(f"{owner}'s n_bins is {n_bins}; use at least 1 (15 is usual)")
    return n_bins
