"""Confusion matrix and summed confidence of each predicted class."""

import torch
from torch import Tensor
from torchmetrics import Metric

MAX_CLASSES = 10_000
"""Largest supported number of classes: the confusion matrix then takes 400 MB."""


class ClassCounts(Metric):
    """Confusion matrix, and the summed confidence of the predictions of each class.

    torchmetrics' `MulticlassConfusionMatrix` has no confidences, and each of its updates allocates
    another matrix of 8-byte counts.

    Args:
        num_classes: Number of classes K, at most `MAX_CLASSES`.
    """

    full_state_update = False
    confusion: Tensor
    confidence: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int32)
        self.add_state("confusion", matrix, dist_reduce_fx="sum")
        sums = torch.zeros(num_classes, dtype=torch.float64)
        self.add_state("confidence", sums, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(B, K)`, any float dtype; the softmax is computed in float32.
            classes: True classes, `(B,)`.
        """
        logits, classes = logits.to(self.device), classes.to(self.device)
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        cells = classes * self.num_classes + predicted
        self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))
        self.confidence.index_add_(0, predicted, confidence.double())

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the counts by true and predicted class `(K, K)`, and summed confidences `(K,)`."""
        return self.confusion, self.confidence
