"""Image transforms: timm's `create_transform` behind the settings of a recipe, made faster.

They take an opened Pillow image and give uint8 ``(3, H, W)``; `normalize` does the rest on the
device. Evaluation pixels equal timm's; training pixels are drawn from the same distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision import transforms as T

from smmix_pl.checks import in_range, one_of
from smmix_pl.data.augment import fast_augment
from smmix_pl.data.crop import RandomResizedCrop
from smmix_pl.data.io.images import to_rgb
from smmix_pl.errors import InputError

KERNELS = ("bicubic", "bilinear")
Transform = Callable[[Any], Any]
"""From an opened Pillow image to a uint8 ``(3, H, W)`` tensor, or to what a check finds."""


@dataclass(frozen=True)
class TrainTransform:
    """Augmentation of training images. The defaults are the paper's ImageNet recipe.

    Args:
        crop: ``resized``: random resized crop; ``padded``: pad by an eighth, crop at random (small
            images).
        scale: Area of the random resized crop as a share of the image, (min, max).
        ratio: Its aspect ratio, (min, max).
        resize: Resize the shorter side to this before cropping; null crops the image as it is.
        hflip: Probability of a horizontal flip.
        color_jitter: Strength of color jitter; used only where there is no ``auto_augment``.
        auto_augment: timm's AutoAugment or RandAugment policy, or null.
        random_erasing: Probability of random erasing.
        interpolation: ``bicubic``, ``bilinear`` or ``random``.
    """

    crop: Literal["resized", "padded"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    resize: int | None = None
    hflip: float = 0.5
    color_jitter: float = 0.4
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for name, (low, high), most in (("scale", self.scale, 1), ("ratio", self.ratio, 1000)):
            if not 0 < low <= high <= most:
                raise InputError(
                    f"train_transform.{name} is [{low}, {high}]; it must satisfy "
                    f"0 < min <= max <= {most}"
                )
        for name in ("hflip", "random_erasing"):
            in_range(f"train_transform.{name}", getattr(self, name), 0, 1, "a probability")
        in_range("train_transform.color_jitter", self.color_jitter, 0, hint="0 is off")
        if self.resize is not None:
            in_range("train_transform.resize", self.resize, 1, 4096, "null resizes nothing")
        one_of("train_transform.interpolation", self.interpolation, (*KERNELS, "random"))
        if self.interpolation == "random" and (self.crop == "padded" or self.resize is not None):
            raise InputError(
                "train_transform.interpolation random works with crop resized and without resize; "
                "choose bicubic or bilinear"
            )


@dataclass(frozen=True)
class EvalTransform:
    """Preparation of evaluation images. The defaults are the paper's: resize to 256, crop 224.

    Args:
        crop_ratio: Share of the resized image's side that the center crop keeps; 1 crops nothing
            off square images.
        interpolation: ``bicubic`` or ``bilinear``.
    """

    crop_ratio: float = 224 / 256
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if not 0.05 <= self.crop_ratio <= 1:  # images are resized by its reciprocal
            raise InputError(
                f"eval_transform.crop_ratio is {self.crop_ratio}; it must be in [0.05, 1]"
            )
        one_of("eval_transform.interpolation", self.interpolation, KERNELS)


def train_transform(
    recipe: TrainTransform, size: tuple[int, int], mean: tuple[float, ...]
) -> Transform:
    """From a Pillow image to an augmented uint8 ``(3, H, W)`` tensor.

    Args:
        recipe: What is done to it.
        size: (H, W).
        mean: Channel means; geometric augmentation fills with them.

    Raises:
        InputError: timm does not know the augmentation.
    """
    try:
        steps = create_transform(
            size,
            is_training=True,
            scale=recipe.scale,
            ratio=recipe.ratio,
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter,
            auto_augment=recipe.auto_augment,
            interpolation=recipe.interpolation,
            mean=mean,
            use_prefetcher=True,  # timm's word for: leave normalisation to the device
        ).transforms[1:]
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"train_transform.auto_augment {recipe.auto_augment!r} is no policy of timm's "
            f"({error}); the paper takes rand-m9-mstd0.5-inc1, and null is off"
        ) from error
    crop = RandomResizedCrop(size, recipe.scale, recipe.ratio, recipe.interpolation)
    first: list[Any] = [crop]
    if recipe.crop == "padded":  # as DeiT does for small images
        padding = (size[1] // 8, size[0] // 8)
        first = [to_rgb, _resize(recipe, size), T.RandomCrop(size, padding=padding)]
    elif recipe.resize is not None:
        first = [to_rgb, _resize(recipe, recipe.resize), crop]
    return T.Compose([*first, *map(fast_augment, steps)])


def eval_transform(recipe: EvalTransform, size: tuple[int, int]) -> Transform:
    """From a Pillow image to a uint8 ``(3, H, W)`` tensor; ``size`` is (H, W)."""
    steps = create_transform(
        size,
        is_training=False,
        crop_pct=recipe.crop_ratio,
        interpolation=recipe.interpolation,
        use_prefetcher=True,
    ).transforms
    return T.Compose([to_rgb, *steps])


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images as float32 of mean 0 and deviation 1, bit for bit as ToTensor and Normalize.

    Args:
        images: ``(..., 3, H, W)``, 0 to 255.
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations, likewise.
    """
    # A tensor, as a GPU multiplies by the reciprocal of a number
    white = torch.tensor(255.0, device=images.device)
    scaled = images.to(torch.float32, memory_format=torch.contiguous_format).div_(white)
    return scaled.sub_(_channels(mean, images)).div_(_channels(std, images))


def denormalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalized images back to values in [0, 1].

    Args:
        images: ``(..., 3, H, W)``.
        mean: Channel means.
        std: Channel standard deviations.
    """
    return (images * _channels(std, images) + _channels(mean, images)).clamp(0, 1)


def erasing(recipe: TrainTransform, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The random erasing of timm of a batch of normalized images, each with its own rectangle."""
    return RandomErasing(recipe.random_erasing, mode="const", device=device)


def _channels(values: tuple[float, ...], images: Tensor) -> Tensor:
    return torch.tensor(values, device=images.device).view(-1, 1, 1)


def _resize(recipe: TrainTransform, size: int | tuple[int, int]) -> T.Resize:
    return T.Resize(size, interpolation=T.InterpolationMode(recipe.interpolation))
