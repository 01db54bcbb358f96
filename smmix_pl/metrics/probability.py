"""Scores of whole probability vectors: class-wise calibration, NLL and Brier score."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from smmix_pl.metrics.reliability import equal_width_bin


class ClasswiseCalibration(Metric):
    """Class-wise ECE (Kull et al., 2019): ECE of every class's own probability, mean over classes.

    Also called static calibration error (Nixon et al., 2019). A class's bins hold every image, not
    only those that are predicted as this class.

    Args:
        num_classes: K.
        n_bins: Equal-width bins.
        among: How many of the classes are in question, where the logits of others are -inf; null
            for all.
    """

    full_state_update = False
    gaps: Tensor
    images: Tensor

    def __init__(self, num_classes: int, n_bins: int = 15, among: int | None = None) -> None:
        super().__init__()
        self.n_bins = n_bins
        self.among = among or num_classes
        # a bin's |accuracy - confidence| times its count is |right - confidence|, both summed
        gaps = torch.zeros(num_classes * n_bins, dtype=torch.float64)
        self.add_state("gaps", gaps, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits ``(B, K)`` and true classes ``(B,)``."""
        logits, classes = logits.to(self.device), classes.to(self.device)
        probability = logits.float().softmax(dim=1)
        first = self.n_bins * torch.arange(logits.shape[1], device=self.device)
        index = equal_width_bin(probability, self.n_bins) + first
        gap = F.one_hot(classes, logits.shape[1]) - probability
        self.gaps.index_add_(0, index.flatten(), gap.flatten().double())
        self.images += len(classes)

    def compute(self) -> Tensor:
        """In [0, 1], usually near 1 / K."""
        return self.gaps.abs().sum() / (self.among * self.images.clamp(min=1))


class ProperScores(Metric):
    """Negative log likelihood in nats, and Brier score summed over classes, in [0, 2]."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits ``(B, K)`` and true classes ``(B,)``."""
        logits, classes = logits.to(self.device).float(), classes.to(self.device)
        nll = F.cross_entropy(logits, classes, reduction="none").double().sum()
        off = logits.softmax(dim=1) - F.one_hot(classes, logits.shape[1])
        brier = off.square().sum(dim=1).double().sum()
        self.sums += torch.stack((torch.full_like(nll, len(classes)), nll, brier))

    def compute(self) -> dict[str, Tensor]:
        """Means over images."""
        total, nll, brier = self.sums
        return {"nll": nll / total.clamp(min=1), "brier": brier / total.clamp(min=1)}
