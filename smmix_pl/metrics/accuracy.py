"""The true class of an image, and top-1 accuracy under several conditions."""

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

OUTLIER = -1
"""Label of an image that belongs to none of the classes."""


def true_classes(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the true class of each image; of several correct ones, the one with the highest logit.

    With that choice, a top-k prediction is correct if it contains any of the correct classes (ReaL
    labels; Beyer et al., 2020).

    Args:
        labels: Class indices `(B,)`, or `(B, K)` bool, true for each correct class.
        logits: `(B, K)`.

    Returns:
        Class indices, `(B,)`.
    """
    if labels.ndim == 1:
        return labels
    return logits.masked_fill(~labels, -torch.inf).argmax(dim=1)


def topk_accuracy(num_classes: int) -> MetricCollection:
    """Return the metrics `top1` and `top5`, or `topK` with K classes below 5, without outliers."""
    return MetricCollection(
        {
            f"top{k}": MulticlassAccuracy(
                num_classes, top_k=k, average="micro", ignore_index=OUTLIER
            )
            for k in (1, min(5, num_classes))
        }
    )


class SweepAccuracy(Metric):
    """Top-1 accuracy under each of several conditions, such as occlusion ratios.

    Equals one `torchmetrics.classification.MulticlassAccuracy` (`average="micro"`) per condition.
    Those would keep and reduce four states for each of up to 80 conditions; this metric has one.

    Args:
        conditions: Number of conditions.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, conditions: int) -> None:
        super().__init__()
        zeros = torch.zeros(2, conditions, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, condition: int, logits: Tensor, labels: Tensor) -> None:
        """Add a batch that was evaluated under one condition.

        Args:
            condition: Index of the condition.
            logits: `(B, K)`.
            labels: See `true_classes`.
        """
        correct = logits.argmax(dim=1) == true_classes(labels, logits)
        self.counts[0, condition] += correct.sum().to(self.device)
        self.counts[1, condition] += len(labels)

    def compute(self) -> list[float]:
        """Return the accuracy under each condition, in [0, 1]."""
        correct, total = self.counts
        accuracy: list[float] = (correct / total.clamp(min=1)).tolist()
        return accuracy
