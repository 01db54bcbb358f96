"""Top-1 accuracy under many conditions at once."""

import torch
from torch import Tensor
from torchmetrics import Metric


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

    def update(self, condition: int, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits ``(B, K)`` and true classes ``(B,)`` under one condition."""
        right = (logits.argmax(dim=1) == classes).sum().to(self.device)
        self.counts[0, condition] += right
        self.counts[1, condition] += len(classes)

    def compute(self) -> list[float]:
        """The accuracy under each condition, in [0, 1]."""
        right, total = self.counts
        accuracy: list[float] = (right / total.clamp(min=1)).tolist()
        return accuracy
