"""Evaluation pixels equal timm's; training pixels follow timm's distribution."""

import random
from io import BytesIO

import numpy as np
import pytest
import torch
from helpers.sampling import every
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from timm.data import auto_augment, create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation

from smmix_pl.data import EvalTransform, TrainTransform, augment
from smmix_pl.data.crop import RandomResizedCrop
from smmix_pl.data.transforms import denormalize, eval_transform, normalize, train_transform
from smmix_pl.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(width=320, height=240, seed=0):
    """Return smooth random colors with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    grain = rng.normal(0, 6, (height, width, 3))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def as_jpeg(image):
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    buffer.seek(0)
    return Image.open(buffer)


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (96, 64)])
@pytest.mark.parametrize("crop_ratio", [0.875, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_pixels_equal_timms_exactly(size, crop_ratio, interpolation):
    image = photograph()
    ours = eval_transform(EvalTransform(crop_ratio, interpolation), size)
    options = {"crop_pct": crop_ratio, "interpolation": interpolation, "mean": MEAN, "std": STD}
    theirs = create_transform(size, is_training=False, **options)
    pixels = ours(as_jpeg(image))
    assert pixels.dtype == torch.uint8
    assert torch.equal(normalize(pixels, MEAN, STD), theirs(as_jpeg(image).convert("RGB")))


@given(st.integers(0, 10**6))
def test_normalization_is_invertible(seed):
    images = torch.randint(0, 256, (2, 3, 4, 5), generator=torch.Generator().manual_seed(seed))
    back = denormalize(normalize(images.to(torch.uint8), MEAN, STD), MEAN, STD)
    assert torch.equal((back * 255).round().long(), images)


@given(st.integers(0, 10**6), st.sampled_from(["bicubic", "bilinear"]))
def test_the_crop_equals_timms_within_rounding(seed, interpolation):
    image = photograph(seed=seed % 7)
    crops = []
    for crop in (RandomResizedCrop, RandomResizedCropAndInterpolation):
        random.seed(seed)
        crops.append(np.asarray(crop((64, 48), interpolation=interpolation)(image), dtype=int))
    difference = np.abs(crops[0] - crops[1])
    assert crops[0].shape == (64, 48, 3)
    assert difference.max() <= 3
    assert difference.mean() < 0.2


@pytest.mark.parametrize("seed", every(4, range(8)))
def test_a_coarsely_decoded_jpeg_is_close_to_a_fully_decoded_one(seed):
    image = photograph(1600, 1200).filter(ImageFilter.GaussianBlur(2))
    crops = []
    for crop in (RandomResizedCrop, RandomResizedCropAndInterpolation):
        random.seed(seed)
        opened = as_jpeg(image)
        opened = opened.convert("RGB") if crop is RandomResizedCropAndInterpolation else opened
        crops.append(np.asarray(crop(96, (0.5, 1.0), interpolation="bicubic")(opened), dtype=float))
    assert np.abs(crops[0] - crops[1]).mean() < 1.5


MOVES = {
    "shear_x": st.floats(-0.3, 0.3),
    "shear_y": st.floats(-0.3, 0.3),
    "translate_x_rel": st.floats(-0.45, 0.45),
    "translate_y_rel": st.floats(-0.45, 0.45),
}


@given(st.data(), st.sampled_from(sorted(MOVES)), st.integers(8, 60), st.integers(8, 60))
def test_shifts_equal_pillows_within_rounding(data, name, width, height):
    amount = data.draw(MOVES[name])
    options = {"fillcolor": (124, 116, 104), "resample": Image.Resampling.BICUBIC}
    image = photograph(width, height)
    theirs = np.asarray(getattr(auto_augment, name)(image, amount, **options), dtype=int)
    ours = np.asarray(getattr(augment, name)(image, amount, **options), dtype=int)
    # A pixel whose center is on the border within rounding may count as outside
    assert (np.abs(ours - theirs).max(axis=2) > 1).sum() <= max(width, height) * (amount == 0)


@pytest.mark.parametrize("bits", [0, 1, 4, 8])
def test_posterize_supports_every_level_of_the_recipe(bits):
    image = photograph(16, 16)
    kept = np.asarray(image) & (256 - 2 ** (8 - bits))
    assert np.array_equal(np.asarray(augment.posterize(image, bits)), kept)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original", "augmix-m3-w2", None])
@pytest.mark.parametrize("crop", ["resized", "padded"])
def test_every_policy_returns_pixels_of_the_right_size(policy, crop):
    recipe = TrainTransform(crop=crop, auto_augment=policy)
    transform = train_transform(recipe, (32, 24), MEAN)
    random.seed(0)
    for _ in range(40):
        pixels = transform(photograph(40, 30))
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (3, 32, 24)


def test_the_recipe_uses_random_numbers_like_timm():
    """The same random numbers choose the same crop, flip, and operations."""
    options = {"auto_augment": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic"}
    theirs = create_transform((64, 64), is_training=True, use_prefetcher=True, mean=MEAN, **options)
    for operation in theirs.transforms[2].ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = augment.posterize  # timm's fails with Pillow 13
    ours = train_transform(TrainTransform(), (64, 64), MEAN)
    differences = []
    for seed in range(60):
        pair = []
        for transform in (ours, theirs):
            random.seed(seed)
            torch.manual_seed(seed)
            np.random.seed(seed)
            pair.append(transform(photograph(seed=seed % 5)).float())
        differences.append((pair[0] - pair[1]).abs().mean().item())
    # Equalizing and posterizing amplify a difference of 1
    assert np.median(differences) < 0.3
    assert max(differences) < 12


def test_resize_before_the_crop():
    recipe = TrainTransform(resize=64, scale=(1.0, 1.0), ratio=(1.0, 1.0), auto_augment=None)
    assert train_transform(recipe, (32, 32), MEAN)(photograph()).shape == (3, 32, 32)


@pytest.mark.parametrize("section", ["mnan", "nan", "m", "mstd", "9", "tnone", "m9x", ""])
def test_policies_with_sections_that_timm_ignores_are_refused(section):
    """timm skips sections without a number, so `rand-mnan` would mean the default magnitude."""
    with pytest.raises(InputError, match=r"data\.train_transform\.auto_augment") as error:
        train_transform(TrainTransform(auto_augment=f"rand-m9-{section}"), (32, 32), MEAN)
    assert f"rand-m9-{section}" in str(error.value)


@pytest.mark.parametrize(
    "policy", ["rand-m9-n3-mstd0.5-mmax12-p0.7-tweights", "v0r-mstd0.5", "augmix-m3-w2-d1-b1-a0.5"]
)
def test_all_sections_of_timm_are_accepted(policy):
    train_transform(TrainTransform(auto_augment=policy), (32, 32), MEAN)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (TrainTransform, {"scale": (1, 0.5)}),
        (TrainTransform, {"ratio": (-1, 1)}),
        (TrainTransform, {"hflip": 2}),
        (TrainTransform, {"interpolation": "cubic"}),
        (EvalTransform, {"crop_ratio": 0}),
        (EvalTransform, {"interpolation": "random"}),
    ],
)
def test_impossible_settings_are_refused(cls, settings):
    [name] = settings
    section = {TrainTransform: "train_transform", EvalTransform: "eval_transform"}[cls]
    with pytest.raises(InputError) as error:
        cls(**settings)
    assert f"data.{section}.{name}=" in str(error.value)
