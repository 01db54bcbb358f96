"""Scores of complete probability vectors: class-wise calibration, NLL, and Brier score."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from smmix_pl.metrics.label_scores import LabelCalibration


class ClasswiseCalibration(LabelCalibration):
    """Class-wise ECE (Kull et al., 2019): ECE of each class's probability, averaged over classes.

    Also called static calibration error (Nixon et al., 2019). The bins of a class hold every image,
    not only those predicted as this class. The result is of the order of 1 / K. With logits of -inf
    for classes that are not evaluated, `averaged` is the number of the others.
    """

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits `(B, K)` and true classes `(B,)`."""
        logits, classes = logits.to(self.device), classes.to(self.device)
        super().update(logits.float().softmax(dim=1), F.one_hot(classes, logits.shape[1]))


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
