"""Confidence against accuracy in equal-width bins: ECE, MCE and the reliability diagram."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Reliability(NamedTuple):
    """A reliability diagram in numbers, one entry a bin.

    Attributes:
        total: Predictions in the bin, ``(n_bins,)``.
        confidence: Their mean confidence; 0 in an empty bin.
        accuracy: The share of them that is right; 0 in an empty bin.
    """

    total: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def ece(self) -> Tensor:
        """Expected calibration error: mean |accuracy - confidence| over predictions, in [0, 1]."""
        return self._mean_over_predictions((self.accuracy - self.confidence).abs())

    @property
    def mce(self) -> Tensor:
        """Maximum calibration error: the largest |accuracy - confidence| of a bin, in [0, 1]."""
        return (self.accuracy - self.confidence).abs().max()

    @property
    def sorted_ece(self) -> Tensor:
        """What the OpenMixup toolbox calls ECE, to stand beside numbers that it printed.

        It sorts the bins' accuracies and confidences separately before it compares them
        (``ece_score`` in openmixup/datasets/classification.py, there with 10 bins), so it equals
        ECE only where both grow with the bin.
        """
        gaps = (self.accuracy.sort().values - self.confidence.sort().values).abs()
        return self._mean_over_predictions(gaps)

    def _mean_over_predictions(self, gaps: Tensor) -> Tensor:
        return (self.total * gaps).sum() / self.total.sum().clamp(min=1)


class ReliabilityBins(Metric):
    """Confidence and accuracy in equal-width bins of the largest softmax probability.

    Bins are (a, b] (Naeini et al., 2015; Guo et al., 2017). torchmetrics'
    ``MulticlassCalibrationError`` keeps every prediction instead of sums, bins [a, b) and gives a
    confidence of exactly 1 a bin of its own; where no confidence is on an edge, its value is
    `Reliability.ece` (``norm="l1"``) and `Reliability.mce` (``norm="max"``).

    Args:
        n_bins: Number of bins.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, n_bins: int = 15) -> None:
        super().__init__()
        self.n_bins = n_bins
        # float64 counts stay exact beyond 2^24 images
        zeros = torch.zeros(3, n_bins, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(B, K)``, any float dtype; softmaxed here in float32.
            classes: True classes, ``(B,)``.
        """
        logits, classes = logits.to(self.device), classes.to(self.device)
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        index = equal_width_bin(confidence, self.n_bins)
        values = torch.stack((torch.ones_like(confidence), confidence, predicted == classes))
        self.sums.index_add_(1, index, values.to(self.sums.dtype))

    def compute(self) -> Reliability:
        """The diagram over everything seen on all ranks."""
        return reliability(self.sums)


def reliability(sums: Tensor) -> Reliability:
    """Means from sums ``(3, n_bins)`` of ones, confidences and right predictions."""
    total, confidence, correct = sums
    filled = total.clamp(min=1)
    return Reliability(total, confidence / filled, correct / filled)


def equal_width_bin(probability: Tensor, n_bins: int) -> Tensor:
    """The bin ((m - 1) / M, m / M] of each probability, counted from 0; 0 is in the first."""
    # rounded once, from float64: a float32 that prints as an edge is on that edge
    edges = torch.arange(1, n_bins, dtype=torch.float64) / n_bins
    return torch.bucketize(probability, edges.to(probability))
