"""Augmentation of batches on the device equals timm's on Pillow, bit for bit."""

from itertools import chain

import numpy as np
import pytest
import torch
from helpers.data_trees import class_tree, jpeg, put
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import auto_augment, create_transform
from torchvision.transforms import functional as vision

from smmix_pl.data import Digits, Folder, TrainTransform, augment
from smmix_pl.data.device_augment import CODES
from smmix_pl.data.device_augment import augment as augment_batch
from smmix_pl.data.device_crop import crop_and_resize
from smmix_pl.data.drawn_operations import drawn_batch
from smmix_pl.data.transforms import train_transform
from smmix_pl.errors import InputError
from smmix_pl.seeding import reseed

MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)
FUNCTIONS = vars(auto_augment) | {
    "flip": lambda image, argument, **_: vision.hflip(image),
    "posterize": augment.posterize,  # timm's fails with Pillow 13
}
RANGES = {
    "solarize": st.integers(0, 256),
    "solarize_add": st.integers(0, 128),
    "posterize": st.integers(0, 8),
    "brightness": st.floats(0, 2),
    "contrast": st.floats(0, 2),
    "color": st.floats(0, 2),
    "desaturate": st.floats(0, 1.2),
    "sharpness": st.floats(0, 2),
    "rotate": st.floats(-40, 40),
    "translate_x_abs": st.floats(-30, 30),
    "translate_y_abs": st.floats(-30, 30),
}


def picture(seed, width, height):
    """Return colors that are smooth, noisy, dark, or constant in one channel."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height)), dtype=float)
    pixels = pixels * rng.uniform(0.2, 1) + rng.normal(0, rng.choice([0, 3, 60]), pixels.shape)
    pixels[..., 0] = pixels[0, 0, 0] if rng.random() < 0.2 else pixels[..., 0]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", sorted(CODES, key=str), ids=str)
@given(data=st.data())
def test_each_operation_equals_timms(name, data):
    function, kernel = name
    size = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    arguments = data.draw(st.lists(RANGES.get(function, st.floats(-0.5, 0.5)), min_size=1))
    options = {"fillcolor": FILL}
    if kernel:
        options["resample"] = Image.Resampling[kernel.upper()]
    images = [picture(data.draw(st.integers(0, 99)), *size) for _ in arguments]
    takes_none = function in ("invert", "auto_contrast", "equalize")
    theirs = [
        FUNCTIONS[function](image, *([] if takes_none else [argument]), **options)
        for image, argument in zip(images, arguments, strict=True)
    ]
    batch = torch.stack([vision.pil_to_tensor(image) for image in images])
    operations = np.array([[[CODES[name], argument]] for argument in arguments], dtype=float)
    ours = augment_batch(batch, operations, FILL)
    assert torch.equal(ours, torch.stack([vision.pil_to_tensor(image) for image in theirs]))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"interpolation": "random"},
        {"auto_augment": None, "color_jitter": 0.4},
        {"auto_augment": "original"},
        {"auto_augment": "rand-m9-n3-tweights"},
    ],
    ids=str,
)
def test_the_chain_equals_timms(settings):
    """With the same random numbers: one crop for both, then flip, policy, and jitter."""
    recipe = TrainTransform(**settings)
    theirs = create_transform(
        (48, 40),
        is_training=True,
        use_prefetcher=True,
        mean=MEAN,
        auto_augment=recipe.auto_augment,
        interpolation=recipe.interpolation,
        color_jitter=recipe.color_jitter,
    )
    policy = theirs.transforms[2]
    for operation in [*getattr(policy, "ops", ()), *chain(*getattr(policy, "policy", ()))]:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = augment.posterize
    ours = train_transform(recipe, (48, 40), MEAN, draw=True)
    theirs.transforms[0] = ours.transforms[0]
    drawn, expected = [], []
    for seed in range(100):
        for transform, results in ((ours, drawn), (theirs, expected)):
            reseed(seed)
            results.append(transform(picture(seed % 7, 60, 50)))
    batch = drawn_batch(torch.stack([item.image for item in drawn]), drawn)
    result = augment_batch(batch.images, batch.operations, FILL)
    assert torch.equal(result, torch.stack(expected))
    assert (result != torch.stack([item.image for item in drawn])).any()


@given(
    data=st.data(), kernel=st.sampled_from([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
)
def test_crops_equal_pillows(data, kernel):
    """Pillow resizes the width first here; on its own it may begin with the height."""
    height, width, high, wide = (data.draw(st.integers(1, 40)) for _ in range(4))
    images = [picture(data.draw(st.integers(0, 99)), width, height) for _ in range(3)]
    boxes, expected = [], []
    for image in images:
        part_high, part_wide = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
        top = data.draw(st.integers(0, height - part_high))
        left = data.draw(st.integers(0, width - part_wide))
        boxes.append((top, left, part_high, part_wide, kernel == Image.BICUBIC))
        part = image.crop((left, top, left + part_wide, top + part_high))
        expected.append(part.resize((wide, part_high), kernel).resize((wide, high), kernel))
    batch = torch.stack([vision.pil_to_tensor(image) for image in images])
    result = crop_and_resize(batch, np.array(boxes, dtype=np.int64), (high, wide))
    assert torch.equal(result, torch.stack([vision.pil_to_tensor(image) for image in expected]))


@pytest.fixture
def folder(tmp_path):
    class_tree(tmp_path / "train", ["ant", "bee"], 6)
    return tmp_path


def epochs(data, count=1):
    """Return the augmented batches of some epochs of training."""
    data.setup("train")
    loader = data.train_dataloader()
    batches = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        batches += [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return batches


@pytest.mark.parametrize("crop", ["padded", "resized"])
@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", None])
def test_cached_images_are_trained_on_like_others(crop, policy):
    """The same images in the same order, with the same crops, flips, and operations."""
    recipe = TrainTransform(crop=crop, auto_augment=policy, scale=(0.5, 1))
    options = {"image_size": 16, "batch_size": 128, "num_workers": 0, "train_transform": recipe}
    options |= {"held_out": 0.8}
    host = epochs(Digits(**options), 2)
    device = epochs(Digits(cache="device", **options), 2)
    assert len(host) == len(device) == 4
    for (images, labels), (others, other_labels) in zip(host, device, strict=True):
        assert torch.equal(labels, other_labels)
        difference = (images - others).abs()
        if crop == "padded":
            assert difference.max() < 1e-6 or policy  # our shears on the host are within 1
        assert difference.median() <= 1 / 255 / 0.37 + 1e-6


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_on_device_sees_the_same_draws_from_workers(folder, workers):
    options = {"image_size": 32, "batch_size": 4, "root": str(folder)}
    options["train_transform"] = TrainTransform(auto_augment=None)
    host = epochs(Folder(num_workers=0, **options))
    device = epochs(Folder(num_workers=workers, augment_on="device", **options))
    for (images, labels), (others, other_labels) in zip(host, device, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_a_cache_of_images_of_different_sizes_is_refused(folder):
    put(folder / "train" / "ant" / "wide.jpg", jpeg(0, (64, 20)))
    data = Folder(root=str(folder), cache="device", num_workers=0, batch_size=2)
    with pytest.raises(InputError, match=r"data\.cache=device"):
        data.setup("train")


@pytest.mark.parametrize("policy", ["augmix-m3-w2", "3a"])
def test_policies_that_the_device_lacks_are_refused(policy):
    with pytest.raises(InputError, match=r"data\.augment_on=device") as error:
        train_transform(TrainTransform(auto_augment=policy), (32, 32), MEAN, draw=True)
    assert policy in str(error.value)


@pytest.mark.parametrize("skip", [True, False])
def test_bad_images_in_the_cache_are_handled_like_others(folder, skip):
    file = put(folder / "train" / "ant" / "empty.jpg", b"")
    options = {"root": str(folder), "cache": "device", "num_workers": 0, "batch_size": 12}
    data = Folder(bad_images="skip" if skip else "stop", **options)
    if skip:
        with pytest.warns(UserWarning, match=str(file)):
            assert sum(len(labels) for _, labels in epochs(data, 3)) >= 33
    else:
        with pytest.raises(InputError, match=str(file)):
            epochs(data, 3)
