"""Metrics on a fine histogram of the confidence, which replaces the list of all confidences.

The axis is the log odds of the largest softmax probability p, log(p / (1 - p)), computed from the
logits. Log odds rank images as p does. They also rank images whose p rounds to 1.0 in float32,
which is common for vision transformers.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

FINE_BINS = 3 * 2**13
LOWEST, HIGHEST = -16.0, 32.0
"""Range of the axis: p of 1e-7 to 1 - 1e-14. Values outside are counted in the outermost bins."""


def log_odds(logits: Tensor) -> Tensor:
    """Return the log odds of the largest softmax probability, in float32.

    Args:
        logits: `(B, K)`. With K = 1 the log odds are infinite.

    Returns:
        `(B,)`.
    """
    logits = logits.float()
    top, index = logits.max(dim=1)
    others = logits.scatter(1, index[:, None], -torch.inf)
    return top - others.logsumexp(dim=1)


def fine_bin(odds: Tensor) -> Tensor:
    """Return the histogram bin of each of the log odds; NaN is counted in the first bin."""
    position = ((odds - LOWEST) / (HIGHEST - LOWEST)).nan_to_num(0.0)
    return (position.clamp(0, 1) * FINE_BINS).long().clamp(max=FINE_BINS - 1)


class AdaptiveCalibration(Metric):
    """Adaptive ECE: bins of equal mass instead of equal width (Mukhoti et al., 2020).

    Each bin holds exactly N / n_bins predictions. A prediction on the border of two bins is split
    between them in proportion. Equal confidences are split in the same way, so their order has no
    effect. Within a fine bin of the histogram the order is lost. The resulting error is below the
    fraction of images in the fine bins on the borders. torchmetrics has no such metric.

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
        """Add a batch of logits `(B, K)` and true classes `(B,)`."""
        logits, classes = logits.to(self.device), classes.to(self.device)
        odds = log_odds(logits).double()
        correct = logits.argmax(dim=1) == classes
        values = torch.stack((torch.ones_like(odds), odds.sigmoid(), correct.double()))
        self.sums.index_add_(1, fine_bin(odds), values)

    def compute(self) -> Tensor:
        """Return the mean |accuracy - confidence| over bins of equal mass, in [0, 1]."""
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
    """How well a score separates images of known classes from outliers.

    Attributes:
        auroc: Probability that an image has a higher score than an outlier; ties count half.
        fpr95: Fraction of outliers that score at least as high as the upper 95% of the images.
        fractions: Fraction of images and of outliers in each fine bin, `(2, FINE_BINS)`.
        outliers: Number of outliers.
    """

    auroc: float
    fpr95: float
    fractions: np.ndarray
    outliers: int


class DetectionHistograms(Metric):
    """Histograms of the largest softmax probability (Hendrycks and Gimpel, 2017).

    torchmetrics' `BinaryAUROC` needs scores in [0, 1]. It either keeps all of them, or bins them
    with equal width, too coarsely near 1.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(2, FINE_BINS, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, outliers: bool) -> None:
        """Add a batch of logits `(B, K)`, either of outliers or of images of known classes."""
        odds = log_odds(logits.to(self.device))
        ones = torch.ones_like(odds, dtype=torch.float64)
        self.counts[int(outliers)].index_add_(0, fine_bin(odds), ones)

    def compute(self) -> Detection:
        """Return AUROC and FPR at 95% TPR, with images as the positives."""
        # Whole numbers up to the last division, so that no rate exceeds 1
        images, outliers = counts = self.counts.cpu().numpy()
        n_images, n_outliers = totals = counts.sum(axis=1).clip(min=1)
        below = np.cumsum(outliers) - outliers
        above = np.cumsum(images[::-1])[::-1]  # images in each bin or above it
        threshold = np.flatnonzero(20 * above >= 19 * n_images).max(initial=0)  # 95%
        return Detection(
            auroc=float((images * (below + outliers / 2)).sum() / (n_images * n_outliers)),
            fpr95=float(outliers[threshold:].sum() / n_outliers),
            fractions=counts / totals[:, None],
            outliers=int(outliers.sum()),
        )


def merge_bins(fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge fine bins into wider ones, to draw them.

    Args:
        fractions: `(2, FINE_BINS)`.

    Returns:
        Left edges of the n merged bins `(n,)` in log odds, and their fractions `(2, n)`.
    """
    width = 0.25  # divides the range of the axis
    merged = fractions.reshape(2, round((HIGHEST - LOWEST) / width), -1).sum(axis=2)
    return LOWEST + width * np.arange(merged.shape[1]), merged
