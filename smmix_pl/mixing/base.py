"""The interface of mixers: their inputs, their outputs, and soft labels.

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w tokens, K classes.

Image i of a batch, the *target*, is mixed with image B-1-i, its *source*. The middle image of an
odd batch is its own source, so every mixer leaves it unchanged.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from smmix_pl.errors import InputError

Readout = Literal["tokens", "class", "similarity", "rollout", "merged"]
"""What a guide pass reads: the attention of all image tokens, the attention of the class token, the
similarity of each image token to the class token, the attention of the class token rolled out
through all blocks, or the attention to the class token where tokens are merged. See
`GuideConfig`."""


@dataclass(frozen=True)
class Guide:
    """Output of a guide pass: what a model computes for the unmixed images.

    Attributes:
        logits: Class logits, `(B, K)`, without gradient. None if the guide pass stops at an earlier
            block; mixers with `reads_logits` are never combined with such a pass.
        attention: Attention that each image token receives, or its similarity to the output,
            `(B, G_h, G_w)` float32, non-negative.
    """

    logits: Tensor | None
    attention: Tensor


class GuideModel(Protocol):
    """The part of a model that mixers use."""

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid `(G_h, G_w)` of one image."""

    def guide(self, images: Tensor) -> Guide:
        """Run the guide pass over unmixed images `(B, C, H, W)`."""

    def input_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss's gradient at each pixel of unmixed images, `(B, C, H, W)`."""


@dataclass(frozen=True)
class Regions:
    """The two regions of each mixed image, and the labels of both.

    Attributes:
        source_mask: `(B, N)` bool, true where the pixels came from the source image.
        target_labels: Soft labels of the target images, `(B, K)`.
        source_labels: Soft labels of the source images, `(B, K)`.
    """

    source_mask: Tensor
    target_labels: Tensor
    source_labels: Tensor


@dataclass(frozen=True)
class Prediction:
    """What the model predicts in a training pass, with gradient, in float32.

    Attributes:
        logits: Class logits, `(B, K)`.
        uncertainty_logits: Logits of the token head for the mean image token, `(B, K)`.
    """

    logits: Tensor
    uncertainty_logits: Tensor


@dataclass(frozen=True)
class Unmixed:
    """A second training pass, over the unmixed images.

    Attributes:
        images: `(B, C, H, W)`.
        compare: Maps the predictions for the mixed and the unmixed images to soft labels `(B, K)`
            of the mixed images and the scalar uncertainty loss.
    """

    images: Tensor
    compare: Callable[[Prediction, Prediction], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Mixed:
    """One mixed batch. Its optional fields decide which losses are computed.

    Attributes:
        images: `(B, C, H, W)`, a new tensor unless nothing was mixed.
        labels: Soft labels, `(B, K)`.
        lam: Target fraction in [0, 1]: one number, or `(B, 1)` with one value per image.
        regions: Inputs of the fine-grained label loss, or None.
        teacher_logits: Target of the consistency loss, `(B, K)` without gradient, or None.
        attentive_labels: Function that computes labels from the training pass over the mixed
            images, or None. It maps attention `(B, G_h, G_w)` and class logits `(B, K)` to soft
            labels `(B, K)`. Both inputs are float32, and the logits carry gradient.
        unmixed: Second training pass, over the unmixed images, or None.
        notes: Further values to log. `region_side` is the side of the region in tokens. `branch` is
            1 where a region was pasted and 0 where images were blended.
    """

    images: Tensor
    labels: Tensor
    lam: float | Tensor
    regions: Regions | None = None
    teacher_logits: Tensor | None = None
    attentive_labels: Callable[[Tensor, Tensor], Tensor] | None = None
    unmixed: Unmixed | None = None
    notes: dict[str, float] = field(default_factory=dict)


class Mixer(ABC):
    """Base class of mixers. Stateless: everything a mixer needs is passed to `__call__`.

    Attributes:
        readout: Readout of the attention that the mixer uses, unless the user sets another one.
        reads_logits: True if the mixer uses the logits of a `Guide`, and not its attention alone.
    """

    readout: ClassVar[Readout] = "tokens"
    reads_logits: bool = False

    @abstractmethod
    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch.

        Args:
            images: `(B, C, H, W)`. Left unchanged.
            labels: Soft labels, `(B, K)`. Left unchanged.
            model: The model being trained, for mixers that need its grid or a guide pass.
            rng: Source of all random choices. Equal generators give equal batches.
        """

    def check_grid(self, grid: tuple[int, int]) -> None:  # noqa: B027 - optional to override
        """Check that the mixer can mix images of a token grid. Called once, before training.

        Args:
            grid: The model's token grid, `(G_h, G_w)`.

        Raises:
            InputError: The mixer would leave every image unchanged, or replace it completely.
        """


def soft_labels(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Convert class indices to one-hot labels with label smoothing.

    Args:
        labels: Class indices, `(B,)`, of an integer dtype.
        num_classes: K.
        smoothing: s in [0, 1]. The off value is s / K, the on value 1 - s + s / K.

    Returns:
        `(B, K)` float32. Each row sums to 1.

    Raises:
        InputError: The labels are not class indices, for example multi-hot or already soft.
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"labels: soft_labels takes class indices (B,) of an integer dtype, got "
            f"{_described(labels)}. Pass one class per image; multi-label data is not supported. "
            "Pass labels that are already soft to the mixer directly."
        )
    off = smoothing / num_classes
    # F.one_hot would synchronize with the device to check the labels.
    soft = torch.full((len(labels), num_classes), off, device=labels.device)
    return soft.scatter_(1, labels.long()[:, None], 1.0 - smoothing + off)


def check_soft_labels(labels: Tensor) -> None:
    """Check shape and dtype of the labels that a mixer receives.

    Raises:
        InputError: The labels are not soft labels `(B, K)` of a floating-point dtype.
    """
    if labels.ndim != 2 or not labels.is_floating_point():
        raise InputError(
            f"labels: mixers take soft labels (B, K) of a float dtype, got {_described(labels)}. "
            "Convert class indices with smmix_pl.mixing.soft_labels(labels, num_classes)."
        )


def blend(values: Tensor, lam: float | Tensor) -> Tensor:
    """Return `lam * values + (1 - lam) * flip(values)`, each row blended with its source row.

    Args:
        values: `(B, ...)`.
        lam: Target fraction: one number, or a tensor that broadcasts over `values`.
    """
    return lam * values + (1.0 - lam) * values.flip(0)


def blend_labels(labels: Tensor, lam: float | Tensor) -> Tensor:
    """Return the labels of a mixed batch, `(B, K)`.

    Args:
        labels: Soft labels, `(B, K)`.
        lam: Target fraction: one number, or `(B, 1)`.

    Raises:
        InputError: The labels are not soft labels.
    """
    check_soft_labels(labels)
    return blend(labels, lam)


def _described(labels: Tensor) -> str:
    return f"shape {tuple(labels.shape)} of {labels.dtype}"
