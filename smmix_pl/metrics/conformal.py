"""Split conformal prediction: sets of classes that hold the true one with a chosen probability.

A score orders the classes of an image. The set holds all classes whose score is at most the
quantile of the true classes' scores on calibration images. Scores are rounded to the bins of a
histogram, which is a score as well: the guarantee holds exactly, and memory is bounded.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from smmix_pl.metrics.histogram import FINE_BINS, fine_bin

Score = Literal["lac", "aps"]


def lac_bins(logits: Tensor) -> Tensor:
    """Return the score 1 - p of each class in bins (LAC; Sadinle et al., 2019), `(B, K)` int64.

    The bins are those of the log odds of p, which order classes as p does.
    """
    log_p = logits.float().log_softmax(dim=1)
    odds = log_p - (-log_p.expm1()).log()
    return FINE_BINS - 1 - fine_bin(odds)


def aps_bins(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return the adaptive score of each class in bins (APS; Romano et al., 2020), `(B, K)` int64.

    It is the probability of all classes that are at least as probable, minus a random part of the
    class's own, without which sets would cover too much.

    Args:
        logits: `(B, K)`.
        uniform: Random part of each image, in [0, 1), `(B,)`.
    """
    p, order = logits.float().softmax(dim=1).sort(dim=1, descending=True)
    score = p.cumsum(dim=1) - uniform[:, None] * p
    bins = (score.clamp(0, 1) * FINE_BINS).long().clamp(max=FINE_BINS - 1)
    return torch.empty_like(bins).scatter_(1, order, bins)


class ConformalScores(Metric):
    """Histograms of the scores of true classes and of all classes, for two halves of the images.

    torchmetrics has no conformal prediction.

    Args:
        score: `lac` or `aps`.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, score: Score) -> None:
        super().__init__()
        self.score = score
        zeros = torch.zeros(2, 2, FINE_BINS, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor, half: Tensor, uniform: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(B, K)`; a class with -inf is in no set.
            classes: True classes, `(B,)`.
            half: 0 or 1 for each image, `(B,)` int64.
            uniform: Random number of each image in [0, 1), `(B,)`.
        """
        logits, classes, half, uniform = (
            x.to(self.device) for x in (logits, classes, half, uniform)
        )
        bins = lac_bins(logits) if self.score == "lac" else aps_bins(logits, uniform)
        true = bins.gather(1, classes[:, None])[:, 0]
        possible = (logits > -torch.inf).double()
        flat, start = self.counts.view(-1), 2 * FINE_BINS * half
        flat.index_add_(0, start + true, torch.ones_like(true, dtype=torch.float64))
        every = (start + FINE_BINS)[:, None] + bins
        flat.index_add_(0, every.flatten(), possible.flatten())

    def compute(self) -> Tensor:
        """Return the counts by half, kind (true classes, all classes), and bin, on the CPU."""
        return self.counts.cpu()


def prediction_sets(calibration: Tensor, evaluated: Tensor, alpha: float) -> tuple[float, float]:
    """Return the fraction of sets that hold the true class, and the mean number of classes in one.

    Args:
        calibration: Counts of calibration images as of `ConformalScores`, `(2, 2, FINE_BINS)`, for
            each half of the evaluated images.
        evaluated: Counts of the evaluated images, `(2, 2, FINE_BINS)`.
        alpha: Accepted probability that a set misses the true class, in (0, 1).
    """
    held, size = 0.0, 0.0
    for known, new in zip(calibration, evaluated, strict=True):
        # the smallest score that holds enough of the true classes, one image more than there are
        rank = math.ceil((int(known[0].sum()) + 1) * (1 - alpha) - 1e-9)
        last = int((known[0].cumsum(dim=0) < rank).sum())  # FINE_BINS if there are too few images
        held += float(new[0, : last + 1].sum())
        size += float(new[1, : last + 1].sum())
    images = max(float(evaluated[:, 0].sum()), 1.0)
    return held / images, size / images
