"""Calibration from fixed-size sums: right on many ranks, and of bounded memory."""

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
        gap = (self.accuracy - self.confidence).abs()
        return (self.total * gap).sum() / self.total.sum().clamp(min=1)


class ReliabilityBins(Metric):
    """Confidence and accuracy in equal-width bins of the largest softmax probability.

    Bins are (a, b] (Guo et al., 2017; Naeini et al., 2015); `Reliability.ece` of the result equals
    torchmetrics' ``MulticlassCalibrationError(norm="l1")``, which keeps every prediction instead of
    sums and puts a confidence of exactly 1 into a bin of its own.

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
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        edges = torch.linspace(0, 1, self.n_bins + 1, device=logits.device)
        index = torch.bucketize(confidence, edges[1:-1])
        values = torch.stack((torch.ones_like(confidence), confidence, predicted == classes))
        self.sums.index_add_(1, index, values.to(self.sums.dtype))

    def compute(self) -> Reliability:
        """The diagram over everything seen on all ranks."""
        total, confidence, correct = self.sums
        filled = total.clamp(min=1)
        return Reliability(total, confidence / filled, correct / filled)
