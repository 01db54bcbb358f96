"""Confusion matrix."""

import torch
from torch import Tensor
from torchmetrics import Metric

MAX_CLASSES = 10_000
"""Largest supported number of classes: the confusion matrix then takes 400 MB."""


class ClassCounts(Metric):
    """Confusion matrix in 4-byte counts.

    Each update of torchmetrics' `MulticlassConfusionMatrix` allocates another matrix of 8-byte
    counts.

    Args:
        num_classes: Number of classes K, at most `MAX_CLASSES`.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int32)
        self.add_state("confusion", matrix, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(B, K)`, any float dtype.
            classes: True classes, `(B,)`.
        """
        logits, classes = logits.to(self.device), classes.to(self.device)
        cells = classes * self.num_classes + logits.argmax(dim=1)
        self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))

    def compute(self) -> Tensor:
        """Return the counts by true and predicted class, `(K, K)`."""
        return self.confusion
