"""Scores of independent labels: calibration of each, and the best threshold of each.

Shapes: B batch, K labels.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from smmix_pl.metrics.reliability import equal_width_bin


class LabelCalibration(Metric):
    """Expected calibration error of each label's probability, averaged over labels.

    The bins of a label hold every image. torchmetrics has no such metric.

    Args:
        num_labels: Number of labels, K.
        n_bins: Number of equal-width bins.
        averaged: Number of labels to average over, if the probabilities of the others are 0. None
            averages over all.
    """

    full_state_update = False
    gaps: Tensor
    images: Tensor

    def __init__(self, num_labels: int, n_bins: int = 15, averaged: int | None = None) -> None:
        super().__init__()
        self.n_bins, self.averaged = n_bins, averaged or num_labels
        # |accuracy - confidence| of a bin, times its count, is |sum of (correct - confidence)|
        gaps = torch.zeros(num_labels * n_bins, dtype=torch.float64)
        self.add_state("gaps", gaps, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch of probabilities `(B, K)` and labels `(B, K)`, each 0 or 1."""
        first = self.n_bins * torch.arange(labels.shape[1], device=probabilities.device)
        index = equal_width_bin(probabilities, self.n_bins) + first
        gap = labels.float() - probabilities
        self.gaps.index_add_(0, index.flatten(), gap.flatten().double())
        self.images += len(labels)

    def compute(self) -> Tensor:
        """Return the mean calibration error, in [0, 1]."""
        return self.gaps.abs().sum() / (self.averaged * self.images.clamp(min=1))


class BestThresholds(Metric):
    """Threshold of each label's probability with the highest F1 score.

    Args:
        num_labels: Number of labels, K.
        steps: Number of candidates: 1 / (steps + 1) and its multiples below 1.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_labels: int, steps: int = 99) -> None:
        super().__init__()
        self.steps = steps
        zeros = torch.zeros(2, steps + 1, num_labels, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch of probabilities `(B, K)` and labels `(B, K)` bool."""
        # how many candidates lie below each probability
        below = equal_width_bin(probabilities, self.steps + 1)
        for state, chosen in zip(self.counts, (labels, ~labels), strict=True):
            state.scatter_add_(0, below, chosen.to(state.dtype))

    def compute(self) -> Tensor:
        """Return the thresholds `(K,)`; 0.5 for a label without positive images."""
        # positive where the probability is above the candidate: all bins after it
        above = self.counts.flip(1).cumsum(1).flip(1)[:, 1:]
        true_positive, false_positive = above
        positive = self.counts[0].sum(dim=0)
        f1 = 2 * true_positive / (true_positive + false_positive + positive).clamp(min=1)
        best = (f1.argmax(dim=0) + 1) / (self.steps + 1)
        return torch.where(positive > 0, best, 0.5).float()
