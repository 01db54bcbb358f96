"""Scores of complete probability vectors: class-wise calibration, NLL, and Brier score."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from smmix_pl.metrics.reliability import equal_width_bin


class ClasswiseCalibration(Metric):
    """Class-wise ECE (Kull et al., 2019): ECE of each class's probability, averaged over classes.

    Also called static calibration error (Nixon et al., 2019). The bins of a class hold every image,
    not only those predicted as this class. torchmetrics has no such metric.

    Args:
        num_classes: Number of classes K.
        n_bins: Number of equal-width bins.
        evaluated_classes: Number of classes to average over, if the logits of the other classes are
            -inf. None averages over all classes.
    """

    full_state_update = False
    gaps: Tensor
    images: Tensor

    def __init__(
        self, num_classes: int, n_bins: int = 15, evaluated_classes: int | None = None
    ) -> None:
        super().__init__()
        self.n_bins = n_bins
        self.evaluated_classes = evaluated_classes or num_classes
        # |accuracy - confidence| of a bin, times its count, is |sum of (correct - confidence)|
        gaps = torch.zeros(num_classes * n_bins, dtype=torch.float64)
        self.add_state("gaps", gaps, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits `(B, K)` and true classes `(B,)`."""
        logits, classes = logits.to(self.device), classes.to(self.device)
        probability = logits.float().softmax(dim=1)
        first = self.n_bins * torch.arange(logits.shape[1], device=self.device)
        index = equal_width_bin(probability, self.n_bins) + first
        gap = F.one_hot(classes, logits.shape[1]) - probability
        self.gaps.index_add_(0, index.flatten(), gap.flatten().double())
        self.images += len(classes)

    def compute(self) -> Tensor:
        """Return the class-wise ECE, in [0, 1] and of the order of 1 / K."""
        return self.gaps.abs().sum() / (self.evaluated_classes * self.images.clamp(min=1))


class ProperScores(Metric):
    """Negative log-likelihood in nats, and Brier score summed over classes, in [0, 2].

    torchmetrics has no multiclass Brier score.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits `(B, K)` and true classes `(B,)`."""
        logits, classes = logits.to(self.device).float(), classes.to(self.device)
        nll = F.cross_entropy(logits, classes, reduction="none").double().sum()
        difference = logits.softmax(dim=1) - F.one_hot(classes, logits.shape[1])
        brier = difference.square().sum(dim=1).double().sum()
        self.sums += torch.stack((torch.full_like(nll, len(classes)), nll, brier))

    def compute(self) -> dict[str, Tensor]:
        """Return the means over images, by the names `nll` and `brier`."""
        total, nll, brier = self.sums
        return {"nll": nll / total.clamp(min=1), "brier": brier / total.clamp(min=1)}
