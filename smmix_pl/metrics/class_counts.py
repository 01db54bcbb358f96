"""Which classes are taken for which, and how sure the model is of each."""

import torch
from torch import Tensor
from torchmetrics import Metric

MOST_CLASSES = 10_000
"""A confusion matrix of more classes is not kept: it would take more than 400 MB."""


class ClassCounts(Metric):
    """The confusion matrix, and the sum of confidences of each predicted class.

    Args:
        num_classes: K, up to `MOST_CLASSES`.
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
            logits: ``(B, K)``, any float dtype; softmaxed here in float32.
            classes: True classes, ``(B,)``.
        """
        logits, classes = logits.to(self.device), classes.to(self.device)
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        cells = classes * self.num_classes + predicted
        self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))
        self.confidence.index_add_(0, predicted, confidence.double())

    def compute(self) -> tuple[Tensor, Tensor]:
        """Counts by true and predicted class, ``(K, K)``, and the sums of confidences, ``(K,)``."""
        return self.confusion, self.confidence
