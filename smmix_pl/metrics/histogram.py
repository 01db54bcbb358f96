"""Histograms of the confidence, fine enough to stand for the sorted confidences themselves.

The axis is the log odds of the largest softmax probability, log(p / (1 - p)), computed from the
logits: it orders images as p does, and goes on where p is 1.0 in float32, which is common for
vision transformers.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

FINE_BINS = 3 * 2**13
LOWEST, HIGHEST = -16.0, 32.0
"""Log odds of 1e-7 and of 1 - 1e-14; what lies beyond is counted at the end."""


def log_odds(logits: Tensor) -> Tensor:
    """Log odds ``(B,)`` of the largest softmax probability of logits ``(B, K)``, in float32.

    With one class they are infinite.
    """
    logits = logits.float()
    top, index = logits.max(dim=1)
    others = logits.scatter(1, index[:, None], -torch.inf)
    return top - others.logsumexp(dim=1)


def fine_bin(odds: Tensor) -> Tensor:
    """The histogram bin of each of the log odds; the first for NaN, which sums then show."""
    share = ((odds - LOWEST) / (HIGHEST - LOWEST)).nan_to_num(0.0)
    return (share.clamp(0, 1) * FINE_BINS).long().clamp(max=FINE_BINS - 1)


class AdaptiveCalibration(Metric):
    """Adaptive ECE: bins of equal mass instead of equal width (Mukhoti et al., 2020).

    Each bin holds exactly N / n_bins predictions: a prediction on the border of two is shared by
    them in proportion, and so are equal confidences, whose order would otherwise matter. Within
    a fine bin of the histogram the order is forgotten, which moves the result by less than the
    share of images in the fine bins on the borders.

    Args:
        n_bins: Number of bins.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, n_bins: int = 15) -> None:
        super().__init__()
        self.n_bins = n_bins
        zeros = torch.zeros(3, FINE_BINS, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits ``(B, K)`` and true classes ``(B,)``."""
        logits, classes = logits.to(self.device), classes.to(self.device)
        odds = log_odds(logits).double()
        right = logits.argmax(dim=1) == classes
        values = torch.stack((torch.ones_like(odds), odds.sigmoid(), right.double()))
        self.sums.index_add_(1, fine_bin(odds), values)

    def compute(self) -> Tensor:
        """Mean |accuracy - confidence| over bins of equal mass, in [0, 1]."""
        sums = self.sums.cpu()
        total, confidence, correct = np.cumsum(sums[:, sums[0] > 0].numpy(), axis=1)
        if not len(total):
            return torch.tensor(0.0)
        borders = np.linspace(0, total[-1], self.n_bins + 1)
        confidence, correct = (
            np.diff(np.interp(borders, np.append(0, total), np.append(0, values)))
            for values in (confidence, correct)
        )
        return torch.tensor(np.abs(confidence - correct).sum() / total[-1])


class Detection(NamedTuple):
    """How well a score tells images of known classes from outliers.

    Attributes:
        auroc: The chance that an image has a higher score than an outlier; ties count half.
        fpr95: The share of outliers that score at least as high as the upper 95% of the images.
        shares: The share of images and of outliers in each fine bin, ``(2, FINE_BINS)``.
        outliers: How many outliers there were.
    """

    auroc: float
    fpr95: float
    shares: np.ndarray
    outliers: int


class DetectionHistograms(Metric):
    """Images and outliers by their largest softmax probability (Hendrycks and Gimpel, 2017)."""

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(2, FINE_BINS, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, outliers: bool) -> None:
        """Add a batch of logits ``(B, K)``, of outliers or of images of known classes."""
        odds = log_odds(logits.to(self.device))
        ones = torch.ones_like(odds, dtype=torch.float64)
        self.counts[int(outliers)].index_add_(0, fine_bin(odds), ones)

    def compute(self) -> Detection:
        """Both numbers, in [0, 1], with images as the positives."""
        total = self.counts.sum(dim=1, keepdim=True).clamp(min=1)
        images, outliers = shares = (self.counts / total).cpu().numpy()
        below = np.cumsum(outliers) - outliers
        above = np.cumsum(images[::-1])[::-1]  # share of images in each bin or above
        threshold = np.flatnonzero(above >= 0.95 - 1e-12).max(initial=0)
        return Detection(
            auroc=float((images * (below + outliers / 2)).sum()),
            fpr95=float(outliers[threshold:].sum()),
            shares=shares,
            outliers=int(self.counts[1].sum()),
        )


def coarse(shares: np.ndarray, width: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Fine bins joined: left edges ``(n,)`` in log odds, and the shares in each ``(2, n)``.

    Args:
        shares: ``(2, FINE_BINS)``.
        width: Of the wider bins, a divisor of the axis.
    """
    joined = shares.reshape(2, round((HIGHEST - LOWEST) / width), -1).sum(axis=2)
    return LOWEST + width * np.arange(joined.shape[1]), joined
