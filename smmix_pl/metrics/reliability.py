"""Confidence and accuracy in equal-width bins: ECE, MCE, and the reliability diagram."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Reliability(NamedTuple):
    """Data of a reliability diagram, one entry per bin.

    Attributes:
        total: Number of predictions in the bin, `(n_bins,)`.
        confidence: Their mean confidence; 0 in an empty bin.
        accuracy: Fraction of correct predictions; 0 in an empty bin.
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
        """Maximum calibration error: largest |accuracy - confidence| of a bin, in [0, 1]."""
        return (self.accuracy - self.confidence).abs().max()

    @property
    def sorted_ece(self) -> Tensor:
        """ECE as the OpenMixup toolbox computes it, for comparison with its published numbers.

        The toolbox sorts the accuracies and the confidences of the bins separately before it
        compares them (`ece_score` in openmixup/datasets/classification.py, with 10 bins). The
        result equals ECE only if both increase with the bin.
        """
        gaps = (self.accuracy.sort().values - self.confidence.sort().values).abs()
        return self._mean_over_predictions(gaps)

    def _mean_over_predictions(self, gaps: Tensor) -> Tensor:
        return (self.total * gaps).sum() / self.total.sum().clamp(min=1)


class ReliabilityBins(Metric):
    """Confidence and accuracy in equal-width bins of the largest softmax probability.

    Bins are (a, b] (Naeini et al., 2015; Guo et al., 2017). torchmetrics'
    `MulticlassCalibrationError` differs in four ways. It keeps every prediction instead of sums,
    and its bins are [a, b). A confidence of exactly 1 gets a bin of its own. Logits that happen to
    be in [0, 1] are read as probabilities. On probabilities of which none is on an edge, it equals
    `Reliability.ece` (`norm="l1"`) and `Reliability.mce` (`norm="max"`).

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
            logits: `(B, K)`, any float dtype; the softmax is computed in float32.
            classes: True classes, `(B,)`.
        """
        logits, classes = logits.to(self.device), classes.to(self.device)
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        index = equal_width_bin(confidence, self.n_bins)
        values = torch.stack((torch.ones_like(confidence), confidence, predicted == classes))
        self.sums.index_add_(1, index, values.to(self.sums.dtype))

    def compute(self) -> Reliability:
        """Return the reliability of all predictions on all ranks."""
        return reliability(self.sums)


def reliability(sums: Tensor) -> Reliability:
    """Return the means, from the summed ones, confidences and correct predictions `(3, n_bins)`."""
    total, confidence, correct = sums
    divisor = total.clamp(min=1)
    return Reliability(total, confidence / divisor, correct / divisor)


def equal_width_bin(probability: Tensor, n_bins: int) -> Tensor:
    """Return the index m from 0 of the bin (m / n_bins, (m + 1) / n_bins] of each probability.

    A probability of 0 belongs to the first bin.
    """
    # rounded once, from float64, so that a float32 that prints as an edge is on that edge
    edges = torch.arange(1, n_bins, dtype=torch.float64, device=probability.device) / n_bins
    return torch.bucketize(probability, edges.to(probability.dtype))
