"""Linear classifiers of the same features, trained side by side with different learning rates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearSweep(nn.Module):
    """A BatchNorm without affine parameters, as in MAE, and one linear classifier per factor.

    The loss of a classifier is multiplied by its factor, which for SGD without weight decay is
    exactly the same as multiplying its learning rate.

    Args:
        width: Number of features, D.
        num_classes: Number of classes, K.
        factors: Factors of the learning rate.
    """

    def __init__(self, width: int, num_classes: int, factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = sorted(set(factors))
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.heads = nn.ModuleList(_new_head(width, num_classes) for _ in self.factors)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return the logits `(B, K)` of each classifier for features `(B, D)`."""
        normed = self.norm(features)
        return [head(normed) for head in self.heads]

    def losses(self, logits: Sequence[Tensor], classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to minimize, and the cross entropy of each classifier, `(L,)`.

        Args:
            logits: Logits of each classifier, `(B, K)`.
            classes: True classes, `(B,)`.
        """
        each = torch.stack([F.cross_entropy(one.float(), classes) for one in logits])
        return each @ each.new_tensor(self.factors), each.detach()


def _new_head(width: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.01)  # as in MAE
    nn.init.zeros_(head.bias)
    return head
