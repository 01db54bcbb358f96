"""Image transforms: timm's `create_transform` behind the settings of a recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.data import create_transform
from torch import Tensor
from torchvision import transforms as T

from smmix_pl.errors import InputError

Transform = Callable[[Any], Tensor]


@dataclass(frozen=True)
class TrainTransform:
    """Augmentation of training images. The defaults are the paper's ImageNet recipe.

    Args:
        crop: ``resized``: random resized crop; ``padded``: pad by an eighth, crop at random (small
            images).
        scale: Area of the random resized crop as a share of the image, (min, max).
        ratio: Its aspect ratio, (min, max).
        hflip: Probability of a horizontal flip.
        color_jitter: Strength of colour jitter; used only where there is no ``auto_augment``.
        auto_augment: timm's AutoAugment or RandAugment policy, or null.
        random_erasing: Probability of random erasing.
        interpolation: ``bicubic``, ``bilinear`` or ``random``.
    """

    crop: Literal["resized", "padded"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.4
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.0
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class EvalTransform:
    """Preparation of evaluation images. The defaults are the paper's: resize to 256, crop 224.

    Args:
        crop_ratio: Share of the resized image's side that the centre crop keeps; 1 crops nothing
            off square images.
        interpolation: ``bicubic`` or ``bilinear``.
    """

    crop_ratio: float = 224 / 256
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if not 0 < self.crop_ratio <= 1:
            raise InputError(
                f"eval_transform.crop_ratio is {self.crop_ratio}; it must be in (0, 1]"
            )


def train_transform(
    recipe: TrainTransform,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Transform:
    """From a PIL image to a normalised, augmented ``(3, H, W)`` float32 tensor."""
    pipeline = create_transform(
        size,
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        re_prob=recipe.random_erasing,
        interpolation=recipe.interpolation,
        mean=mean,
        std=std,
    )
    if recipe.crop == "padded":  # as DeiT does for small images
        interpolation = T.InterpolationMode(recipe.interpolation)
        resize = T.Resize(size, interpolation=interpolation)
        crop = T.RandomCrop(size, padding=(size[1] // 8, size[0] // 8))
        pipeline.transforms[0] = T.Compose([resize, crop])
    return pipeline


def eval_transform(
    recipe: EvalTransform,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Transform:
    """From a PIL image to a normalised ``(3, H, W)`` float32 tensor."""
    return create_transform(
        size,
        is_training=False,
        crop_pct=recipe.crop_ratio,
        interpolation=recipe.interpolation,
        mean=mean,
        std=std,
    )


def denormalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalised images back to values in [0, 1].

    Args:
        images: ``(..., 3, H, W)``.
        mean: Channel means.
        std: Channel standard deviations.
    """
    shape = (-1, 1, 1)
    mean_t = torch.tensor(mean, device=images.device).view(shape)
    std_t = torch.tensor(std, device=images.device).view(shape)
    return (images * std_t + mean_t).clamp(0, 1)
