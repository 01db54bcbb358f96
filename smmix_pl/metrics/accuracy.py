"""Which class counts as an image's own, and top-1 accuracy under many conditions at once."""

import torch
from torch import Tensor
from torchmetrics import Metric

OUTLIER = -1
"""Stands for the class of an image that is of none."""


def true_classes(labels: Tensor, logits: Tensor) -> Tensor:
    """The class of each image, ``(B,)``; where several are right, the likeliest of them.

    So top-k is right where any of them is among the first k (ReaL, Beyer et al., 2020).

    Args:
        labels: ``(B,)`` class numbers, or ``(B, K)`` bool, true for each class that is right.
        logits: ``(B, K)``.
    """
    if labels.ndim == 1:
        return labels
    return logits.masked_fill(~labels, -torch.inf).argmax(dim=1)


class SweepAccuracy(Metric):
    """Top-1 accuracy under each of several conditions, such as shares of occlusion.

    Args:
        conditions: How many.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, conditions: int) -> None:
        super().__init__()
        zeros = torch.zeros(2, conditions, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, condition: int, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of logits ``(B, K)`` and labels (see `true_classes`) under one condition."""
        right = (logits.argmax(dim=1) == true_classes(labels, logits)).sum().to(self.device)
        self.counts[0, condition] += right
        self.counts[1, condition] += len(labels)

    def compute(self) -> list[float]:
        """The accuracy under each condition, in [0, 1]."""
        right, total = self.counts
        accuracy: list[float] = (right / total.clamp(min=1)).tolist()
        return accuracy
