"""The seam between mixing and everything else: what a mixer is given and what it returns.

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w tokens, K classes.

Image i of a batch, the *target*, is mixed with image B-1-i, its *source*. The middle image of an
odd batch is its own source, so it leaves every mixer as it came.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

Readout = Literal["tokens", "class"]
"""Whose attention: the mean over the image tokens' queries, or the class token's."""


@dataclass(frozen=True)
class Guide:
    """What the model under training says of unmixed images.

    Attributes:
        logits: Class logits, ``(B, K)``, without gradient; None from a model that was told to stop
            before it has any, which no mixer that reads them is given.
        attention: How much each image token is attended to, ``(B, G_h, G_w)`` float32.
    """

    logits: Tensor | None
    attention: Tensor


class GuideModel(Protocol):
    """The model under training, as far as a mixer sees it."""

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid ``(G_h, G_w)`` of one image."""

    def guide(self, images: Tensor) -> Guide:
        """The motivating pass over unmixed images ``(B, C, H, W)``."""


@dataclass(frozen=True)
class Regions:
    """Which tokens of the mixed images came from where, and the labels that belong to each part.

    Attributes:
        source_mask: ``(B, N)`` bool, true where the pixels came from the source image.
        target_labels: Soft labels of the target images, ``(B, K)``.
        source_labels: Soft labels of the source images, ``(B, K)``.
    """

    source_mask: Tensor
    target_labels: Tensor
    source_labels: Tensor


@dataclass(frozen=True)
class Mixed:
    """One mixed batch. What it carries decides which losses exist.

    Attributes:
        images: ``(B, C, H, W)``, new ones unless nothing was mixed.
        labels: Soft labels, ``(B, K)``.
        lam: Share of the target image in [0, 1]: one number, or ``(B, 1)``, one for each image.
        regions: Present if the fine-grained label loss applies.
        teacher_logits: ``(B, K)`` without gradient, present if the consistency loss applies.
        attentive_labels: Present if the labels follow the mixed images' own training pass: maps its
            attention ``(B, G_h, G_w)`` and its class logits ``(B, K)``, float32 both and the
            logits with gradient, to soft labels ``(B, K)``.
        notes: What a log should say of this batch beside lam: the region's side in tokens; and,
            of mixers with two branches, 1 where a region is pasted, 0 where images are blended.
    """

    images: Tensor
    labels: Tensor
    lam: float | Tensor
    regions: Regions | None = None
    teacher_logits: Tensor | None = None
    attentive_labels: Callable[[Tensor, Tensor], Tensor] | None = None
    notes: dict[str, float] = field(default_factory=dict)


class Mixer(ABC):
    """Turns a batch into a `Mixed` batch; told everything by its arguments, it keeps no state.

    Attributes:
        readout: Whose attention it goes by, if it goes by any and the module is not told.
        reads_logits: Whether it reads the logits of the model's `Guide`, not the attention alone.
    """

    readout: ClassVar[Readout] = "tokens"
    reads_logits: bool = False

    @abstractmethod
    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch.

        Args:
            images: ``(B, C, H, W)``; left unchanged.
            labels: Soft labels, ``(B, K)``; left unchanged.
            model: The model under training; a mixer that needs no guide asks for none.
            rng: Source of every random choice: equal generators give equal batches.
        """


def soft_labels(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """One-hot labels with label smoothing.

    Args:
        labels: Class numbers, ``(B,)`` int64.
        num_classes: K.
        smoothing: s in [0, 1]: off value s / K, on value 1 - s + s / K.

    Returns:
        ``(B, K)`` float32; rows sum to 1.
    """
    off = smoothing / num_classes
    # Not F.one_hot, which reads the labels on the host to check them
    soft = torch.full((len(labels), num_classes), off, device=labels.device)
    return soft.scatter_(1, labels[:, None], 1.0 - smoothing + off)


def blend(values: Tensor, lam: float | Tensor) -> Tensor:
    """``lam * values + (1 - lam) * flip(values)``: each row blended with its source's.

    Args:
        values: ``(B, ...)``.
        lam: Share of the target image: one number, or a tensor that broadcasts over ``values``.
    """
    return lam * values + (1.0 - lam) * values.flip(0)
