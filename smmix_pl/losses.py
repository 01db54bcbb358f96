"""Losses of a training step. What the mixed batch carries decides which of them exist.

Shapes: B batch, N image tokens, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.checks import in_range, one_of, positive
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Mixed, Prediction, Regions

if TYPE_CHECKING:
    from smmix_pl.models.backbone import Backbone, Features

DistillationKind = Literal["hard", "soft"]


@dataclass(frozen=True)
class LossConfig:
    """Loss settings. The defaults are the paper's.

    Args:
        label_smoothing: Label smoothing of all targets, in [0, 1).
        fine_grained: Weight of the fine-grained label loss.
        consistency: Weight of the consistency loss.
        soft_start_epochs: Epochs over which both weights rise linearly from 0, one step per epoch.
            0 keeps them constant, as in the paper.
        distillation: Distillation from `model.teacher`: `hard` learns its predicted class, `soft`
            its probabilities. `null` turns it off, as in the paper.
        distillation_weight: Weight of the distillation loss, in [0, 1]. The classification loss
            has the rest, and the extra losses of SMMix keep theirs.
        temperature: Divisor of both logits in `soft` distillation.
    """

    label_smoothing: float = 0.1
    fine_grained: float = 1.0
    consistency: float = 1.0
    soft_start_epochs: int = 0
    distillation: DistillationKind | None = None
    distillation_weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"model.losses.label_smoothing={self.label_smoothing}: must be in [0, 1). The "
                "paper uses 0.1."
            )
        for name in ("fine_grained", "consistency", "soft_start_epochs"):
            in_range(f"model.losses.{name}", getattr(self, name), 0)
        if self.distillation is not None:
            one_of("model.losses.distillation", self.distillation, get_args(DistillationKind))
        in_range("model.losses.distillation_weight", self.distillation_weight, 0, 1)
        positive("model.losses.temperature", self.temperature, "DeiT uses 1 and 3")


class Distillation:
    """Distillation loss on mixed images (Touvron et al., DeiT, ICML 2021).

    As in DeiT's code, the teacher sees the mixed images, and a distilled model learns from it with
    the head of its distillation token. A model without one learns with its class head. The `soft`
    loss is the paper's, per image; the code also divides it by the number of classes.

    Args:
        teacher: Maps normalized images `(B, C, H, W)` to class logits `(B, K)`, without gradient.
        kind: `hard` learns the predicted class, `soft` the probabilities.
        weight: Weight of this loss; the classification loss has the rest.
        temperature: Divisor of both logits in the `soft` loss.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        kind: DistillationKind = "hard",
        weight: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        self.teacher = teacher
        self.kind = kind
        self.weight = weight
        self.temperature = temperature

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        """Return the scalar float32 loss of logits `(B, K)` of images `(B, C, H, W)`."""
        with torch.no_grad():
            target = self.teacher(images)
        if self.kind == "hard":
            return F.cross_entropy(logits.float(), target.argmax(dim=1))
        heat = self.temperature
        return heat**2 * consistency_loss(logits.float() / heat, target.float() / heat)


class SMMixLoss:
    """Total loss of a mixed batch, for any training loop.

    The sum of up to three terms (sections 3.3 to 3.5 of the paper): cross entropy with the mixed
    labels, fine-grained label loss on the tokens of both regions, and consistency with the guide's
    mixed logits. A batch without regions or teacher logits, such as Mixup's or CutMix's, has the
    first term only.

    Args:
        backbone: Model under training.
        fine_grained: Weight of the fine-grained label loss.
        consistency: Weight of the consistency loss.
        distillation: Further loss from a teacher (not in the paper). A distilled model then trains
            its two heads separately.

    Example:
        >>> criterion = SMMixLoss(backbone)
        >>> loss = criterion(mixer(images, labels, backbone, rng))
    """

    def __init__(
        self,
        backbone: "Backbone",
        fine_grained: float = 1.0,
        consistency: float = 1.0,
        distillation: Distillation | None = None,
    ) -> None:
        self.backbone = backbone
        self.distillation = distillation
        if distillation is not None and hasattr(backbone.model, "set_distilled_training"):
            backbone.model.set_distilled_training(True)
        self.weights = {
            "fine_grained_target": fine_grained / 2,
            "fine_grained_source": fine_grained / 2,
            "consistency": consistency,
        }

    def __call__(self, mixed: Mixed) -> Tensor:
        """Run the training pass over a mixed batch and return the scalar float32 loss."""
        return self.total(self.terms(mixed))

    def terms(self, mixed: Mixed) -> dict[str, Tensor]:
        """Run the training pass over a mixed batch and return the unweighted losses by name."""
        relabel = mixed.attentive_labels
        features = self.backbone.features(mixed.images, relabel is not None)
        logits, tokens, attention, distilled = features
        labels = mixed.labels
        terms = {}
        if relabel is not None and attention is not None:
            labels = relabel(attention, logits.float())
        if mixed.unmixed is not None:
            unmixed = self.backbone.features(mixed.unmixed.images)
            labels, terms["uncertainty"] = mixed.unmixed.compare(
                self._prediction(features), self._prediction(unmixed)
            )
        terms["classification"] = soft_cross_entropy(logits, labels)
        if mixed.regions is not None:
            source = mixed.regions.source_mask
            by_region = self.backbone.region_logits(tokens, torch.stack((~source, source), dim=1))
            target_logits, source_logits = by_region.unbind(dim=1)
            terms |= fine_grained_losses(target_logits, source_logits, mixed.regions)
        else:
            terms["classification"] = terms["classification"] + self.backbone.unused_token_head()
        if mixed.teacher_logits is not None:
            terms["consistency"] = consistency_loss(logits, mixed.teacher_logits)
        if self.distillation is not None:
            student = logits if distilled is None else distilled
            terms["distillation"] = self.distillation(mixed.images, student)
        return terms

    def _prediction(self, features: "Features") -> Prediction:
        tokens = features.tokens
        everywhere = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        uncertainty = self.backbone.region_logits(tokens, everywhere)
        return Prediction(features.logits.float(), uncertainty.float())

    def total(self, terms: Mapping[str, Tensor], extra: float = 1.0) -> Tensor:
        """Return the weighted sum of the terms.

        Args:
            terms: Losses as returned by `terms`.
            extra: Additional factor of the fine-grained and consistency weights, in [0, 1].
        """
        weights = {name: extra * value for name, value in self.weights.items()}
        if self.distillation is not None:
            weight = self.distillation.weight
            weights |= {"classification": 1 - weight, "distillation": weight}
        return weighted_sum(terms, weights)


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute cross entropy against soft labels, averaged over the batch.

    Args:
        logits: `(B, K)`, any float dtype.
        labels: `(B, K)`; rows sum to 1.

    Returns:
        Scalar float32 loss.
    """
    return F.cross_entropy(logits.float(), labels)


def fine_grained_losses(
    target_logits: Tensor, source_logits: Tensor, regions: Regions
) -> dict[str, Tensor]:
    """Compute the cross entropy of each region with the labels of its own image.

    The paper's fine-grained label loss is the mean of both.

    Args:
        target_logits: Token-head logits of the target regions, `(B, K)`.
        source_logits: Token-head logits of the source regions, `(B, K)`.
        regions: Labels of both regions.
    """
    return {
        "fine_grained_target": soft_cross_entropy(target_logits, regions.target_labels),
        "fine_grained_source": soft_cross_entropy(source_logits, regions.source_labels),
    }


def consistency_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute KL(softmax(teacher_logits) || softmax(logits)), averaged over the batch.

    Args:
        logits: Class logits of the mixed images, `(B, K)`.
        teacher_logits: Mixed guide logits of the original images, `(B, K)`. Detached.

    Returns:
        Scalar float32 loss.
    """
    teacher = F.log_softmax(teacher_logits.detach().float(), dim=-1)
    student = F.log_softmax(logits.float(), dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted sum of scalar losses.

    Args:
        losses: Losses by name.
        weights: Weights by name. A loss without a weight has weight 1.
    """
    return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
