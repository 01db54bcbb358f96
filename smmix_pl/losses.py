"""The losses of a training step, from what the batch carries.

B batch, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.mixing.base import Regions


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy against soft labels: the batch mean of ``-sum(labels * log_softmax(logits))``.

    Args:
        logits: ``(B, K)``, any float dtype; the loss is float32.
        labels: ``(B, K)``, rows sum to 1.
    """
    return -(labels * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()


def fine_grained_losses(
    target_logits: Tensor, source_logits: Tensor, regions: Regions
) -> dict[str, Tensor]:
    """Each region's logits against its own image's labels; the paper's loss is the mean of both.

    Args:
        target_logits: Token-head logits of the target regions, ``(B, K)``.
        source_logits: Token-head logits of the source regions, ``(B, K)``.
        regions: Carries both regions' labels.
    """
    return {
        "fine_grained_target": soft_cross_entropy(target_logits, regions.target_labels),
        "fine_grained_source": soft_cross_entropy(source_logits, regions.source_labels),
    }


def consistency_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax(teacher_logits) || softmax(logits)), batch mean.

    Args:
        logits: Class logits of the mixed images, ``(B, K)``.
        teacher_logits: Mixed logits of the unmixed images, ``(B, K)``; no gradient flows to them.
    """
    teacher = F.log_softmax(teacher_logits.detach().float(), dim=-1)
    student = F.log_softmax(logits.float(), dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of the losses, each times its weight.

    Args:
        losses: Scalars by name.
        weights: Weight by name; a loss that is not named weighs 1.
    """
    return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
