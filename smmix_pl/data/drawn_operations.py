"""Draws timm's random augmentation without applying it.

The transforms are timm's and torchvision's own objects. Where they would change pixels, the
operation and its argument are kept instead, for `device_augment.py`. They consume the same random
numbers, so an image gets the same augmentation on the host and on the device.
"""

import random
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, AutoAugment, RandAugment
from torchvision import transforms as T

from smmix_pl.data.device_augment import CODES
from smmix_pl.errors import InputError

JITTER = ("brightness", "contrast", "color")
"""Steps of torchvision's ColorJitter in the order of its factors."""


class Drawn(NamedTuple):
    """An image and how to augment it.

    Args:
        image: uint8 `(3, H, W)`, or the index of a cached image.
        operations: Code in `CODES` and argument of each operation, in order.
        box: Crop of a cached image: top, left, height, width, and 1 for bicubic resizing.
    """

    image: Any
    operations: list[tuple[int, float]]
    box: tuple[int, ...] = ()


class DrawnBatch(NamedTuple):
    """A batch of images and how to augment them. The host keeps the two arrays.

    Args:
        images: uint8 `(B, 3, H, W)`, or indices of cached images `(B,)`.
        operations: `(B, L, 2)` float64, padded with code -1.
        boxes: `(B, 5)` int64, or `(B, 0)`.
    """

    images: torch.Tensor
    operations: np.ndarray
    boxes: np.ndarray


def undrawn(image: torch.Tensor) -> Drawn:
    """Return an image without operations, for others to be added."""
    return Drawn(image, [])


def drawn_batch(images: torch.Tensor, drawn: Sequence[Drawn]) -> DrawnBatch:
    """Return a batch of collated images with the operations of each.

    Args:
        images: The images, or indices, of `drawn` as one tensor.
        drawn: The items of the batch.
    """
    longest = max(len(item.operations) for item in drawn)
    operations = np.full((len(drawn), longest, 2), -1.0)
    for row, item in zip(operations, drawn, strict=True):
        if item.operations:
            row[: len(item.operations)] = item.operations
    return DrawnBatch(images, operations, np.array([item.box for item in drawn], dtype=np.int64))


def draw_only(step: Any, policy: str | None) -> Any:
    """Return a step of timm's transform that maps `Drawn` to `Drawn`, drawing as the step does.

    Args:
        step: Step after the crop. timm's objects are changed in place.
        policy: Setting that it comes from, for errors.

    Raises:
        InputError: The device lacks an operation of the policy.
    """
    if isinstance(step, T.RandomHorizontalFlip):
        return DrawnFlip(step.p)
    if isinstance(step, T.ColorJitter):
        return DrawnJitter(step)
    operations: list[AugmentOp] = []
    if isinstance(step, RandAugment):
        operations = list(step.ops)
    elif isinstance(step, AutoAugment):
        operations = list(chain(*step.policy))
    missing = [one.name for one in operations if not DrawnOperation.supports(one.aug_fn.__name__)]
    if missing or not operations:
        raise InputError(
            f"data.augment_on=device: {missing[0] if missing else type(step).__name__} of "
            f"data.train_transform.auto_augment={policy} is not available there. Set "
            "data.augment_on=host and data.cache=null."
        )
    for operation in operations:
        operation.aug_fn = DrawnOperation(operation.aug_fn.__name__)
    return step


class DrawnFlip(T.RandomHorizontalFlip):
    """Draws a horizontal flip."""

    def forward(self, drawn: Drawn) -> Drawn:
        """Add the flip, at random."""
        if torch.rand(1) < self.p:
            drawn.operations.append((CODES["flip", None], 0.0))
        return drawn


class DrawnJitter:
    """Draws brightness, contrast, and saturation, in random order.

    Args:
        step: Color jitter without hue.
    """

    def __init__(self, step: T.ColorJitter) -> None:
        self.step = step

    def __call__(self, drawn: Drawn) -> Drawn:
        """Add the three operations."""
        ranges = self.step.brightness, self.step.contrast, self.step.saturation
        order, *factors, _ = self.step.get_params(*ranges, None)
        for place in order.tolist():
            if place < len(factors):
                drawn.operations.append((CODES[JITTER[place], None], factors[place]))
        return drawn


class DrawnOperation:
    """Stands in for a function of timm's `auto_augment` module.

    Args:
        name: Name of the function.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def supports(name: str) -> bool:
        """Return True if the device has an operation."""
        return (name, None) in CODES or (name, "bicubic") in CODES

    def __call__(self, drawn: Drawn, argument: float = 0.0, *, resample: Any, **fill: Any) -> Drawn:
        """Add the operation. The kernel is drawn where timm draws it."""
        kernel = None
        if (self.name, None) not in CODES:
            kernel = random.choice(resample) if isinstance(resample, tuple | list) else resample
        code = CODES[self.name, kernel and Image.Resampling(kernel).name.lower()]
        drawn.operations.append((code, argument))
        return drawn
