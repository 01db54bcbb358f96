"""Image transforms: timm's `create_transform`, with the settings of a recipe and faster steps.

They map an opened Pillow image to a uint8 `(3, H, W)` tensor. `normalize` runs on the device.
Evaluation pixels equal timm's; training pixels follow the same distribution.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision import transforms as T

from smmix_pl.checks import in_range, one_of, probability
from smmix_pl.data.augment import fast_augment
from smmix_pl.data.crop import RandomResizedCrop
from smmix_pl.data.drawn_operations import Drawn, draw_only, undrawn
from smmix_pl.data.io.images import to_rgb
from smmix_pl.errors import InputError

KERNELS = ("bicubic", "bilinear")
Transform = Callable[[Any], Any]
"""Maps an opened Pillow image to a uint8 `(3, H, W)` tensor, or to what a check reports."""


@dataclass(frozen=True)
class TrainTransform:
    """Augmentation of training images. Defaults follow the paper's ImageNet recipe.

    Args:
        crop: `resized` for a random resized crop, or `padded` to pad by an eighth and crop at
            random (small images).
        scale: Area of the random resized crop as a fraction of the image, (min, max).
        ratio: Aspect ratio of the random resized crop, (min, max).
        resize: Resize the shorter side to this many pixels before cropping; `null` does not resize.
        hflip: Probability of a horizontal flip.
        color_jitter: Strength of color jitter, used only if `auto_augment` is `null`.
        auto_augment: timm's AutoAugment, RandAugment, or AugMix policy, or `null`.
        random_erasing: Probability of random erasing.
        interpolation: `bicubic`, `bilinear`, or `random`.
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
                    f"data.train_transform.{name}=[{low}, {high}]: must satisfy "
                    f"0 < min <= max <= {most}."
                )
        probability("data.train_transform.hflip", self.hflip)
        probability("data.train_transform.random_erasing", self.random_erasing)
        in_range("data.train_transform.color_jitter", self.color_jitter, 0, hint="0 turns it off")
        if self.resize is not None:
            in_range("data.train_transform.resize", self.resize, 1, 4096, "Set null to not resize")
        one_of("data.train_transform.interpolation", self.interpolation, (*KERNELS, "random"))
        if self.interpolation == "random" and (self.crop == "padded" or self.resize is not None):
            raise InputError(
                "data.train_transform.interpolation=random: requires crop=resized and resize=null. "
                "Use bicubic or bilinear."
            )
        check_policy(self.auto_augment)


@dataclass(frozen=True)
class EvalTransform:
    """Preparation of evaluation images. Defaults follow the paper: resize to 256, crop 224.

    Args:
        crop_ratio: Side of the center crop as a fraction of the resized image's side; 1 does not
            crop square images. `null` uses that of the weights that `model.pretrained` loads, else
            0.875.
        interpolation: `bicubic` or `bilinear`.
        crop_mode: `center` resizes the shorter side and crops the longer one. `squash` resizes both
            sides, so that with `crop_ratio=1` all of the image is visible.
    """

    crop_ratio: float | None = None
    interpolation: str = "bicubic"
    crop_mode: Literal["center", "squash"] = "center"

    def __post_init__(self) -> None:
        # images are resized by its reciprocal
        in_range("data.eval_transform.crop_ratio", self.crop_pct, 0.05, 1)
        one_of("data.eval_transform.interpolation", self.interpolation, KERNELS)
        one_of("data.eval_transform.crop_mode", self.crop_mode, ("center", "squash"))

    @property
    def crop_pct(self) -> float:
        """The crop ratio, or the default."""
        return 224 / 256 if self.crop_ratio is None else self.crop_ratio


def check_policy(policy: str | None) -> None:
    """Check that timm reads every section of an augmentation policy.

    timm skips sections without a number and unknown sets of transforms: `rand-mnan` would mean
    RandAugment with its defaults. It rejects unknown names with a number itself.

    Raises:
        InputError: A section is neither a name with a number nor a known set of transforms.
    """
    first, *sections = (policy or "").split("-")
    for section in sections:
        known_set = first == "rand" and section in ("tweights", "t3a", "t3aw")
        if not known_set and not re.fullmatch(r"[a-z]+\d+(\.\d+)?", section):
            raise InputError(
                f"data.train_transform.auto_augment={policy}: section {section!r} is not a name "
                "with a number, such as m9. Use rand-m9-mstd0.5-inc1 (the paper's) or null."
            )


def train_transform(
    recipe: TrainTransform, size: tuple[int, int], mean: tuple[float, ...], draw: bool = False
) -> Transform:
    """Return the transform from a Pillow image to an augmented uint8 `(3, H, W)` tensor.

    Args:
        recipe: Augmentation settings.
        size: Output (H, W).
        mean: Channel means, the fill color of geometric augmentation.
        draw: Crop and resize, but only draw the rest: the transform returns a `Drawn`.

    Raises:
        InputError: timm, or with `draw` the device, does not support the policy.
    """
    crop = RandomResizedCrop(size, recipe.scale, recipe.ratio, recipe.interpolation)
    first: list[Any] = [crop]
    if recipe.crop == "padded":  # DeiT's crop for small images
        first = [to_rgb, _resize(recipe, size), T.RandomCrop(size, padding=_padding(size)[::-1])]
    elif recipe.resize is not None:
        first = [to_rgb, _resize(recipe, recipe.resize), crop]
    if draw:
        return T.Compose([*first, T.PILToTensor(), undrawn, _draw_steps(recipe, size, mean)])
    return T.Compose([*first, *map(fast_augment, _random_steps(recipe, size, mean))])


def cached_transform(recipe: TrainTransform, size: tuple[int, int]) -> Transform:
    """Return the part of the training transform before the random crop, to be done once.

    Args:
        recipe: Augmentation settings.
        size: Output (H, W) of the complete transform.
    """
    resize = size if recipe.crop == "padded" else recipe.resize
    scaled = [] if resize is None else [_resize(recipe, resize)]
    return T.Compose([to_rgb, *scaled, T.PILToTensor()])


def drawn_crop(
    recipe: TrainTransform, size: tuple[int, int], mean: tuple[float, ...]
) -> Callable[[int, tuple[int, int]], Drawn]:
    """Return a function that draws crop and augmentation, given an index and an image's (H, W).

    It draws what `train_transform` would apply with the same random numbers.

    Args:
        recipe: Augmentation settings.
        size: Output (H, W).
        mean: As in `train_transform`.

    Raises:
        InputError: The device does not support the policy.
    """
    steps = _draw_steps(recipe, size, mean)
    crop = RandomResizedCrop(size, recipe.scale, recipe.ratio, recipe.interpolation)
    down, right = _padding(size)

    def draw(index: int, shape: tuple[int, int]) -> Drawn:
        if recipe.crop == "padded":
            padded = torch.empty(0, size[0] + 2 * down, size[1] + 2 * right)
            top, left, *_ = T.RandomCrop.get_params(padded, size)
            box: tuple[int, ...] = (top - down, left - right, *size, 0)
        else:
            box = crop.draw(*shape)
        return steps(Drawn(index, [], box))

    return draw


def fill_color(mean: tuple[float, ...]) -> tuple[int, ...]:
    """Return the color that timm fills with in geometric augmentation."""
    return tuple(min(255, round(255 * channel)) for channel in mean)


def _random_steps(
    recipe: TrainTransform, size: tuple[int, int], mean: tuple[float, ...]
) -> list[Any]:
    """Return timm's steps after the crop; the last one converts to a tensor."""
    try:
        steps = create_transform(
            size,
            is_training=True,
            scale=recipe.scale,
            ratio=recipe.ratio,
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment,
            interpolation=recipe.interpolation,
            mean=mean,
            use_prefetcher=True,  # leaves normalization to the device
        ).transforms[1:]
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"data.train_transform.auto_augment={recipe.auto_augment}: not a policy of timm "
            f"({error}). Use rand-m9-mstd0.5-inc1 (the paper's) or null."
        ) from error
    return list(steps)


def _draw_steps(
    recipe: TrainTransform, size: tuple[int, int], mean: tuple[float, ...]
) -> Callable[[Drawn], Drawn]:
    """Return the steps after the crop, drawn instead of applied."""
    steps = _random_steps(recipe, size, mean)[:-1]
    return T.Compose([draw_only(step, recipe.auto_augment) for step in steps])


def _padding(size: tuple[int, int]) -> tuple[int, int]:
    """Return the padding on each side, (vertical, horizontal)."""
    return size[0] // 8, size[1] // 8


def eval_transform(recipe: EvalTransform, size: tuple[int, int]) -> Transform:
    """Return the transform from a Pillow image to a uint8 `(3, H, W)` tensor.

    Args:
        recipe: Evaluation settings.
        size: Output (H, W).
    """
    return T.Compose([to_rgb, *eval_steps(recipe, size, recipe.interpolation)])


def eval_steps(recipe: EvalTransform, size: tuple[int, int], interpolation: str) -> list[Any]:
    """Return timm's steps for an evaluation image: resize, center crop, conversion to a tensor.

    Args:
        recipe: Evaluation settings.
        size: Output (H, W).
        interpolation: `nearest` for masks.
    """
    steps: list[Any] = create_transform(
        size,
        is_training=False,
        crop_pct=recipe.crop_pct,
        crop_mode=recipe.crop_mode,
        interpolation=interpolation,
        use_prefetcher=True,
    ).transforms
    return steps


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalize uint8 images to float32, bit-exact with torchvision's ToTensor and Normalize.

    Args:
        images: `(..., 3, H, W)`, values 0 to 255.
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations of images in [0, 1].
    """
    # A tensor, because a GPU multiplies by the reciprocal of a Python number
    white = torch.full((), 255.0, device=images.device)
    scaled = images.to(torch.float32, memory_format=torch.contiguous_format).div_(white)
    return scaled.sub_(_channels(mean, images)).div_(_channels(std, images))


def denormalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Map normalized images back to [0, 1].

    Args:
        images: `(..., 3, H, W)`.
        mean: Channel means.
        std: Channel standard deviations.
    """
    return (images * _channels(std, images) + _channels(mean, images)).clamp(0, 1)


def erasing(recipe: TrainTransform, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return timm's random erasing for a batch of normalized images, one rectangle per image."""
    return RandomErasing(recipe.random_erasing, mode="const", device=device)


def _channels(values: tuple[float, ...], images: Tensor) -> Tensor:
    return _on_device(tuple(values), images.device)


@cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return channel constants `(C, 1, 1)`, copied once: each copy makes the host wait."""
    with torch.inference_mode(False):  # or autograd would reject them later
        return torch.tensor(values, device=device).view(-1, 1, 1)


def _resize(recipe: TrainTransform, size: int | tuple[int, int]) -> T.Resize:
    return T.Resize(size, interpolation=T.InterpolationMode(recipe.interpolation))
