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
ClassificationKind = Literal["cross_entropy", "binary"]


@dataclass(frozen=True)
class LossConfig:
    """Loss settings. The defaults are the paper's.

    Args:
        classification: Loss of all labels: `cross_entropy` of the softmax, as in the paper, or
            `binary` cross entropy of each class's sigmoid, as in DeiT III and ResNet strikes back.
        target_threshold: With `binary`, labels above this count as 1 and others as 0, in [0, 1).
            ResNet strikes back uses 0.2, DeiT III 0 without label smoothing. `null` keeps soft
            labels.
        class_weights: `balanced` weights classes by their inverse frequency in the training set;
            with `binary`, the positive labels of each class against its negative ones.
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

    classification: ClassificationKind = "cross_entropy"
    target_threshold: float | None = None
    class_weights: Literal["balanced"] | None = None
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
        one_of("model.losses.classification", self.classification, get_args(ClassificationKind))
        if self.class_weights is not None:
            one_of("model.losses.class_weights", self.class_weights, ("balanced",))
        if self.target_threshold is not None and not (
            self.classification == "binary" and 0 <= self.target_threshold < 1
        ):
            raise InputError(
                f"model.losses.target_threshold={self.target_threshold}: must be in [0, 1), with "
                "model.losses.classification=binary. Change or remove it."
            )
        if self.distillation is not None and self.classification == "binary":
            raise InputError(
                f"model.losses.distillation={self.distillation}: compares softmax probabilities, "
                "which model.losses.classification=binary does not train. Remove one of them."
            )
        if self.distillation is not None:
            one_of("model.losses.distillation", self.distillation, get_args(DistillationKind))
        in_range("model.losses.distillation_weight", self.distillation_weight, 0, 1)
        positive("model.losses.temperature", self.temperature, "DeiT uses 1 and 3")


class CrossEntropy:
    """Losses of softmax probabilities.

    Args:
        weights: Weight of each class, `(K,)`.
    """

    def __init__(self, weights: Tensor | None = None) -> None:
        self.weights = weights

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits `(B, K)` with soft labels `(B, K)`, a scalar."""
        return soft_cross_entropy(logits, labels, self.weights)

    def divergence(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the consistency loss of logits `(B, K)`, a scalar."""
        return consistency_loss(logits, teacher_logits)


class BinaryCrossEntropy:
    """Losses of the sigmoid of each class, averaged over images and classes.

    Args:
        positive_weights: Weight of the positive labels of each class, `(K,)`.
        threshold: Labels above this count as 1, others as 0. None keeps soft labels.
    """

    def __init__(
        self, positive_weights: Tensor | None = None, threshold: float | None = None
    ) -> None:
        self.positive_weights = positive_weights
        self.threshold = threshold

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits `(B, K)` with labels `(B, K)` in [0, 1], a scalar."""
        labels = labels if self.threshold is None else (labels > self.threshold).float()
        return F.binary_cross_entropy_with_logits(
            logits.float(), labels, pos_weight=self.positive_weights
        )

    def divergence(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return KL(sigmoid(teacher_logits) || sigmoid(logits)), a scalar."""
        teacher_logits = teacher_logits.detach().float()
        teacher = teacher_logits.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(teacher_logits, teacher)
        return F.binary_cross_entropy_with_logits(logits.float(), teacher) - entropy


def label_loss(
    config: LossConfig, counts: tuple[Tensor, int] | None = None
) -> CrossEntropy | BinaryCrossEntropy:
    """Return the loss of all labels.

    Args:
        config: Loss settings.
        counts: Number of training images with each class, `(K,)`, and of all; with
            `class_weights=balanced`. A class without images has the weight of one with one image.
    """
    if config.classification == "cross_entropy":
        weights = None if counts is None else counts[1] / (len(counts[0]) * counts[0].clamp(min=1))
        return CrossEntropy(weights)
    positive = None if counts is None else (counts[1] - counts[0]) / counts[0].clamp(min=1)
    return BinaryCrossEntropy(positive, config.target_threshold)


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
        label_loss: Loss of all labels: `CrossEntropy`, as in the paper, if it is None, or
            `BinaryCrossEntropy`.

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
        label_loss: CrossEntropy | BinaryCrossEntropy | None = None,
    ) -> None:
        self.backbone = backbone
        self.label_loss = label_loss or CrossEntropy()
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
        terms["classification"] = self.label_loss(logits, labels)
        if mixed.regions is not None:
            source = mixed.regions.source_mask
            by_region = self.backbone.region_logits(tokens, torch.stack((~source, source), dim=1))
            target_logits, source_logits = by_region.unbind(dim=1)
            terms |= fine_grained_losses(
                target_logits, source_logits, mixed.regions, self.label_loss
            )
        else:
            terms["classification"] = terms["classification"] + self.backbone.unused_token_head()
        if mixed.teacher_logits is not None:
            terms["consistency"] = self.label_loss.divergence(logits, mixed.teacher_logits)
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


def soft_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute cross entropy against soft labels, averaged over the batch.

    Args:
        logits: `(B, K)`, any float dtype.
        labels: `(B, K)`; rows sum to 1.
        weights: Weight of each class, `(K,)`.

    Returns:
        Scalar float32 loss.
    """
    return F.cross_entropy(logits.float(), labels, weights)


def fine_grained_losses(
    target_logits: Tensor,
    source_logits: Tensor,
    regions: Regions,
    label_loss: Callable[[Tensor, Tensor], Tensor] = soft_cross_entropy,
) -> dict[str, Tensor]:
    """Compute the cross entropy of each region with the labels of its own image.

    The paper's fine-grained label loss is the mean of both.

    Args:
        target_logits: Token-head logits of the target regions, `(B, K)`.
        source_logits: Token-head logits of the source regions, `(B, K)`.
        regions: Labels of both regions.
        label_loss: Loss of logits and labels.
    """
    return {
        "fine_grained_target": label_loss(target_logits, regions.target_labels),
        "fine_grained_source": label_loss(source_logits, regions.source_labels),
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
