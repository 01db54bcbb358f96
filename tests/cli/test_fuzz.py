"""Random input gives a correct result or an `InputError`, and nothing else."""

import inspect
import io
import math

import numpy as np
import pytest
import torch
from helpers.sampling import every
from helpers.small_runs import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from smmix_pl import Backbone, Digits, OptimConfig, SMMixModule, mixing
from smmix_pl.callbacks import AttentionQuality, Calibration, Occlusion
from smmix_pl.data import EvalTransform, TrainTransform
from smmix_pl.data.io.images import BadImage, Content, transformed
from smmix_pl.data.transforms import eval_transform, train_transform
from smmix_pl.errors import InputError
from smmix_pl.losses import LossConfig
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.weights import load_weights

HEADERS = {
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    + b"\x00\x00\x00\x08" * 2
    + b"\x08\x02\x00\x00\x00",
    "GIF": b"GIF89a\x08\x00\x08\x00\xf0\x00\x00",
    "WEBP": b"RIFF\x40\x00\x00\x00WEBPVP8 ",
    "TIFF": b"II*\x00\x08\x00\x00\x00",
    "BMP": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00",
    "PPM": b"P6 8 8 255 ",
}
TRANSFORMS = {
    "train": train_transform(TrainTransform(), (8, 8), (0.5, 0.5, 0.5)),
    "eval": eval_transform(EvalTransform(), (8, 8)),
}
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 0.5, math.nan, math.inf, -math.inf, 1e300, -1e300, 10**9]),
    st.integers(-5, 20),
    st.floats(),
)


def encoded(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


REAL = {kind: encoded(kind) for kind in HEADERS}


def assert_image_or_error(content, transform):
    """Check that content gives an image of the right form, or an error that names the file."""
    try:
        picture = transformed(Content("the_file", content), TRANSFORMS[transform])
    except BadImage as error:
        assert "the_file" in str(error)
        assert "\n" not in str(error)
    else:
        assert picture.shape == (3, 8, 8)
        assert picture.dtype in (torch.uint8, np.uint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HEADERS)
@given(noise=st.binary(max_size=400), transform=st.sampled_from(sorted(TRANSFORMS)))
def test_noise_behind_the_header_of_an_image(kind, noise, transform):
    assert_image_or_error(HEADERS[kind] + noise, transform)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HEADERS)
@given(
    length=st.floats(0, 1),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
    transform=st.sampled_from(sorted(TRANSFORMS)),
)
def test_truncated_images_and_wrong_bytes(kind, length, place, byte, transform):
    complete = REAL[kind]
    assert_image_or_error(complete[: int(length * len(complete))], transform)
    wrong = bytearray(complete)
    wrong[int(place**3 * len(complete))] = byte  # headers more often than pixels
    assert_image_or_error(bytes(wrong), transform)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return Backbone("vit_tiny_patch16_224", 10, (32, 32), model_args=TINY)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """Return a folder with the weights of the tiny backbone as files."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save({"model": tiny.model.state_dict()}, folder / "w.pth")
    save_file(tiny.model.state_dict(), folder / "w.safetensors")
    return folder


@pytest.mark.parametrize("name", every(2, ["w.pth", "w.safetensors"]))
@settings(max_examples=8)  # two models each
@given(length=st.floats(0, 1), place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_truncated_weights_and_wrong_bytes(name, tiny, saved, length, place, byte):
    complete = (saved / name).read_bytes()
    file = saved / f"bad_{name}"
    file.write_bytes(complete[: int(length * len(complete))])
    assert_loaded_or_error(file, tiny.model.state_dict(), exact=True)
    wrong = bytearray(complete)
    wrong[int(place**8 * len(complete))] = byte  # names and shapes more often than weights
    file.write_bytes(wrong)
    assert_loaded_or_error(file, tiny.model.state_dict(), exact=False)


def assert_loaded_or_error(file, right, exact):
    """Check that a file gives complete finite weights, or an error that names it."""
    backbone = Backbone("vit_tiny_patch16_224", 10, (32, 32), model_args=TINY)
    try:
        load_weights(backbone, file)
    except InputError as error:
        assert file.name in str(error)
        assert "\n" not in str(error)
    else:
        for name, weight in backbone.model.state_dict().items():
            assert weight.isfinite().all()
            assert not exact or torch.equal(weight, right[name])


MIXERS = {
    mixer: [name for name, one in parameters.items() if isinstance(one.default, float)]
    for mixer in (
        *(mixing.SMMix, mixing.Mixup, mixing.CutMix, mixing.FMix, mixing.GridMix),
        *(mixing.ResizeMix, mixing.SaliencyMix, mixing.TokenMix, mixing.TransMix, mixing.MixPro),
    )
    if (parameters := inspect.signature(mixer).parameters)
}


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.__name__)
@given(data=st.data())
def test_numbers_for_a_mixer(mixer, tiny, data):
    chosen = data.draw(st.sets(st.sampled_from(MIXERS[mixer])))
    arguments = {name: data.draw(NUMBERS, name) for name in sorted(chosen)}
    try:
        mixes = mixer(**arguments)
    except InputError as error:
        assert any(name in str(error) for name in (*arguments, "alpha"))
        return
    images = torch.rand(3, 3, 32, 32)
    labels = torch.eye(10)[:3]
    with torch.no_grad():
        mixed = mixes(images, labels, tiny, np.random.default_rng(0))
    assert mixed.images.shape == images.shape
    assert mixed.images.isfinite().all()
    torch.testing.assert_close(mixed.labels.sum(dim=1), torch.ones(3))
    assert (mixed.labels >= 0).all()


def built(kind, **arguments):
    """Return the object, or None if it rejects its arguments with a one-line error."""
    try:
        return kind(**arguments)
    except InputError as error:
        assert "\n" not in str(error)
        return None


@given(
    lr=NUMBERS,
    weight_decay=NUMBERS,
    eps=NUMBERS,
    warmup_epochs=NUMBERS,
    warmup_lr=NUMBERS,
    min_lr=NUMBERS,
    betas=st.tuples(NUMBERS, NUMBERS),
)
def test_numbers_for_the_optimizer(**arguments):
    for name, value in arguments.items():
        recipe = built(OptimConfig, **{name: value})
        if recipe is not None:
            assert math.isfinite(recipe.effective_lr(1024))
            assert all(math.isfinite(v) and v >= 0 for v in (value if name == "betas" else [value]))


@given(name=st.sampled_from(["scale", "ratio"]), low=NUMBERS, high=NUMBERS, number=NUMBERS)
def test_numbers_for_the_transforms(name, low, high, number):
    recipe = built(TrainTransform, **{name: (low, high)})
    if recipe is not None:
        picture = train_transform(recipe, (8, 8), (0.5, 0.5, 0.5))(Image.new("RGB", (9, 7)))
        assert picture.shape == (3, 8, 8)
    for probability in ("hflip", "random_erasing"):
        if built(TrainTransform, **{probability: number}) is not None:
            assert 0 <= number <= 1


COUNTS = st.one_of(st.integers(-3, 40), st.sampled_from([-(10**9), 10**9]))


@pytest.mark.slow
@settings(max_examples=15)
@given(
    batch_size=COUNTS,
    image_size=st.integers(-2, 40),
    num_workers=COUNTS,
    repeats=st.integers(-3, 4),
    shots=COUNTS,
    split_seed=COUNTS,
    held_out=NUMBERS,
    train_fraction=NUMBERS,
    channels=st.tuples(NUMBERS, NUMBERS, NUMBERS),
)
def test_numbers_for_the_data(channels, **arguments):
    both = {"mean": channels, "std": channels}
    for name, value in (arguments | both).items():
        sane = {"image_size": 8, "num_workers": 0, "batch_size": 4} | {name: value}
        data = built(Digits, **sane)
        if data is None or name == "num_workers":
            continue
        try:
            data.setup("fit")
        except InputError as error:
            assert name in str(error) or "batch_size" in str(error)
            continue
        if data.batch_size < 50:
            images, classes = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
            assert images.shape == (data.batch_size, 3, *data.image_size)
            assert images.isfinite().all()
            assert classes.min() >= 0
            assert classes.max() < 10


@settings(max_examples=10)  # four models each
@given(smoothing=NUMBERS, weight=NUMBERS, guide=st.integers(-9, 40))
def test_numbers_for_the_module(smoothing, weight, guide):
    for arguments in (
        {"losses": built(LossConfig, label_smoothing=smoothing)},
        {"losses": built(LossConfig, fine_grained=weight)},
        {"losses": built(LossConfig, consistency=weight)},
        {"guide": built(GuideConfig, size=guide)},
    ):
        if None in arguments.values():
            continue
        module = built(
            SMMixModule,
            num_classes=10,
            image_size=(32, 32),
            batch_size=3,
            mixer=mixing.SMMix(switch_prob=1),
            backbone="vit_tiny_patch16_224",
            backbone_args=TINY | {"depth": 1},
            **arguments,
        )
        if module is not None:
            assert all(math.isfinite(weight) for weight in module.criterion.weights.values())
            assert 0 <= module.loss_config.label_smoothing < 1
            images = torch.rand(3, 3, 32, 32)
            assert module.backbone.guide(images).attention.isfinite().all()


@given(count=st.integers(-5, 40), ratios=st.lists(NUMBERS, max_size=3))
def test_numbers_for_the_callbacks(count, ratios):
    if built(Calibration, n_bins=count) is not None:
        assert count >= 1
    if built(AttentionQuality, every_n_steps=count) is not None:
        assert count >= 1
    if built(Occlusion, ratios=ratios) is not None:
        assert ratios
        assert all(0 < ratio <= 1 for ratio in ratios)
