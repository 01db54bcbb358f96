"""Occlusion: position of the holes, their fill, and the accuracy of the occluded images."""

import numpy as np
import pytest
import torch
from helpers.digits import accuracy, complete_test_set, digits, metrics_on_digits, quiet_trainer
from helpers.sampling import every
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc
from torch.utils.data import Dataset

from smmix_pl import Digits, InputError
from smmix_pl.callbacks import Occlusion
from smmix_pl.callbacks.evaluation.occlusion import default_patch_size
from smmix_pl.robustness.patches import (
    attention_order,
    filling,
    holes,
    patch_grid,
    random_order,
)

seeds = st.integers(0, 2**31 - 1)
sides = st.integers(1, 6)
ratios = st.floats(0.01, 1.0)


def holes_by_loop(order, ratio, size, shift):
    """A pixel is dropped if its patch is among the first round(ratio * N)."""
    batch, rows, columns = order.shape
    patch_h, patch_w = size[0] // rows, size[1] // columns
    down, right = (patch_h // 2, patch_w // 2) if shift else (0, 0)
    found = torch.zeros(batch, *size, dtype=torch.bool)
    for b in range(batch):
        for y in range(down, size[0]):
            for x in range(right, size[1]):
                rank = order[b, (y - down) // patch_h, (x - right) // patch_w]
                found[b, y, x] = bool(rank < round(ratio * rows * columns))
    return found


@given(sides, sides, st.integers(1, 5), st.integers(1, 5), ratios, st.booleans(), seeds)
def test_holes_equal_the_loop(rows, columns, patch_h, patch_w, ratio, shift, seed):
    order = random_order((rows, columns), seed, [0, 7])
    size = (rows * patch_h, columns * patch_w)
    found = holes(order, ratio, size, shift)
    assert torch.equal(found, holes_by_loop(order, ratio, size, shift))
    if not shift:
        dropped = round(ratio * rows * columns) * patch_h * patch_w
        assert found.sum(dim=(1, 2)).tolist() == [dropped, dropped]


@given(sides, sides, seeds, ratios, ratios)
def test_a_higher_ratio_includes_the_holes_of_a_lower_one(rows, columns, seed, one, other):
    order = random_order((rows, columns), seed, range(3))
    low, high = (holes(order, r, (rows, columns)) for r in sorted((one, other)))
    assert not (low & ~high).any()


@given(sides, sides, seeds, st.integers(0, 9))
def test_an_order_depends_on_the_place_and_not_on_the_batch(rows, columns, seed, cut):
    complete = random_order((rows, columns), seed, range(10))
    assert torch.equal(complete.flatten(1).sort().values[0], torch.arange(rows * columns))
    parts = [range(cut), range(cut, 10)]
    orders = [random_order((rows, columns), seed, part) for part in parts if len(part)]
    assert torch.equal(complete, torch.cat(orders))


def test_orders_differ_between_images_and_between_seeds():
    orders = torch.cat([random_order((14, 14), seed, range(50)) for seed in (0, 1)])
    assert len({tuple(order) for order in orders.flatten(1).tolist()}) == 100
    ranks = orders.flatten(1).double().mean(0)  # no patch is dropped earlier than others
    assert (ranks - 97.5).abs().max() < 5 * 56.6 / 10


def test_most_attended_patches_are_first_and_ties_in_row_major_order():
    attention = torch.tensor([[[0.1, 0.4], [0.4, 0.2]]])
    assert attention_order(attention, (2, 2), True).tolist() == [[[3, 0], [1, 2]]]
    assert attention_order(attention, (2, 2), False).tolist() == [[[0, 2], [3, 1]]]


def test_attention_order_of_patches_larger_and_smaller_than_tokens():
    attention = torch.arange(16.0).view(1, 4, 4)
    assert attention_order(attention, (2, 2), True).tolist() == [[[3, 2], [1, 0]]]
    fine = attention_order(attention[:, :2, :2], (4, 4), True)[0]  # of 0, 1, 4 and 5
    assert fine[2:, 2:].tolist() == [[0, 1], [2, 3]]
    assert fine[:2, :2].tolist() == [[12, 13], [14, 15]]


@given(st.integers(-3, 50), st.integers(1, 64), st.integers(1, 64))
def test_a_patch_divides_the_image_or_is_rejected(patch, height, width):
    if patch > 0 and not height % patch and not width % patch:
        assert patch_grid((height, width), patch) == (height // patch, width // patch)
    else:
        with pytest.raises(InputError, match=rf"(?<!\d){patch}\b.*{height} x {width}"):
            patch_grid((height, width), patch)


def test_fills_of_the_holes():
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)) + 2
    places = [3, 4, 5, 6]
    assert filling("zero", images, 8, 0, places).eq(0).all()
    mean = filling("mean", images, 8, 0, places).expand_as(images)
    torch.testing.assert_close(mean[1, 2], torch.full((24, 24), float(images[1, 2].mean())))
    noise = filling("noise", images, 8, 0, places)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    assert torch.equal(noise[2:], filling("noise", images[2:], 8, 0, places[2:]))
    assert not torch.equal(noise, filling("noise", images, 8, 1, places))
    blurred = filling("blur", images, 8, 0, places)
    assert blurred.std() < 0.2 * images.std()
    constant = torch.full((1, 3, 24, 24), 0.7)
    torch.testing.assert_close(filling("blur", constant, 24, 0, [0]), constant)


class InputRecorder:
    """Records the images of every forward pass of a module."""

    def __init__(self, module):
        self.batches = []
        module.backbone.register_forward_pre_hook(self.record)

    def record(self, backbone, inputs):
        self.batches.append(inputs[0].clone())

    def holes(self, conditions):
        """Return the pixels that are 0 in all channels, by condition, `(images, H, W)` each."""
        passes = [torch.cat(self.batches[i::conditions]) for i in range(conditions)]
        return [(images == 0).all(dim=1) for images in passes]


def recorded_holes(module, occlusion, **arguments):
    recorder = InputRecorder(module)
    metrics_on_digits(module, occlusion, **arguments)
    plain, *occluded = recorder.holes(1 + len(occlusion.drops) * len(occlusion.ratios))
    assert not plain.any()  # no pixel of a digit is 0 after normalization
    return occluded


def with_patch_size(module, patch_size):
    """Return a new module that differs in the patch size of its backbone."""
    backbone_args = module.hparams["backbone_args"] | {"patch_size": patch_size}
    changed = {"mixer": module.mixer, "backbone_args": backbone_args}
    return type(module)(**(dict(module.hparams) | changed))


def test_two_models_see_the_same_holes_whatever_their_patch_and_batch_size(tiny_module):
    other = with_patch_size(tiny_module, 8)
    first, second = (
        recorded_holes(module, Occlusion([0.3, 0.6], drops=["random", "shifted"]), batch_size=size)
        for module, size in ((tiny_module, 100), (other, 77))
    )
    order = random_order((8, 8), 0, range(359))
    for index, (one, another) in enumerate(zip(first, second, strict=True)):
        assert torch.equal(one, another)
        expected = holes(order, (0.3, 0.6)[index % 2], (32, 32), shift=index >= 2)
        assert torch.equal(one, expected)


def test_dropped_patches_can_be_those_of_the_model(tiny_module):
    callback = Occlusion([0.5], patch_size="model")
    [occluded] = recorded_holes(with_patch_size(tiny_module, 8), callback)
    expected = holes(random_order((4, 4), 0, range(359)), 0.5, (32, 32))
    assert torch.equal(occluded, expected)
    assert set(callback.result.metrics) == {
        "occlusion_model_patch_50",
        "occlusion_model_patch_auc_50",
    }


def test_the_protocol_states_the_dropped_patches(tiny_module):
    callback = Occlusion([0.25])
    metrics_on_digits(with_patch_size(tiny_module, 8), callback)
    assert callback.result.protocol["patch_size"] == 4
    assert callback.result.protocol["grid"] == [8, 8]
    assert "occlusion_25" in callback.result.metrics


@pytest.mark.parametrize(
    ("image_size", "patch_size"),
    [
        ((224, 224), 16),  # as published
        ((448, 448), 32),
        ((384, 384), 24),
        ((224, 192), 16),
        ((64, 64), 4),
        ((32, 32), 4),
        ((28, 28), 4),
        ((24, 24), 4),
        ((2, 2), 2),
    ],
)
def test_the_default_patch_follows_from_the_image_size(image_size, patch_size):
    assert default_patch_size(image_size) == patch_size


@given(st.integers(1, 600), st.integers(1, 600))
def test_the_default_patch_divides_every_image(height, width):
    assert patch_grid((height, width), default_patch_size((height, width)))


def test_pattern_batch_drops_the_same_patches_in_all_images_of_a_batch(tiny_module):
    [occluded] = recorded_holes(tiny_module, Occlusion([0.5], pattern="batch"), batch_size=100)
    for part in occluded.split(100):
        assert torch.equal(part, part[:1].expand_as(part))
        assert part[0].sum() == 32 * 32 / 2
    assert not torch.equal(occluded[0], occluded[100])


@pytest.mark.parametrize("drop", ["salient", "non-salient"])
def test_salient_patches_have_the_highest_or_lowest_attention(tiny_module, drop):
    with torch.no_grad():
        for parameter in tiny_module.backbone.parameters():
            parameter.mul_(2)  # makes the attention less uniform
    [occluded] = recorded_holes(tiny_module, Occlusion([0.25], drops=[drop]))
    images, _ = complete_test_set()
    attention = tiny_module.eval().backbone.guide(images).attention.flatten(1)
    dropped = occluded[:, ::4, ::4].flatten(1)
    assert (dropped.sum(1) == 16).all()
    inside = torch.where(dropped, attention, torch.nan)
    outside = torch.where(dropped, torch.nan, attention)
    if drop == "salient":
        gaps = inside.nan_to_num(torch.inf).amin(1) - outside.nan_to_num(-torch.inf).amax(1)
    else:
        gaps = outside.nan_to_num(torch.inf).amin(1) - inside.nan_to_num(-torch.inf).amax(1)
    assert (gaps >= -1e-6).all()  # batches of 100 and 359 differ by rounding


class CountedReads(Dataset):
    """Counts how often each image is read."""

    def __init__(self, images):
        self.images, self.targets = images, images.targets
        self.reads = np.zeros(len(images), dtype=int)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.images[index]


class CountedDigits(Digits):
    def images(self, split, transform):
        self.counted = CountedReads(super().images(split, transform))
        return self.counted


def test_each_image_is_read_once_for_all_ratios(tiny_module):
    data = CountedDigits(image_size=32, batch_size=100, num_workers=0)
    sweep = Occlusion([0.2, 0.4, 0.6, 0.8], drops=["random", "salient"])
    quiet_trainer(sweep, Occlusion([0.5], pattern="batch")).test(tiny_module, data, verbose=False)
    assert (data.counted.reads == 1).all()


@pytest.mark.parametrize("fill", every(2, ["zero", "mean", "noise", "blur"]))
def test_accuracies_are_those_of_the_occluded_images(tiny_module, fill):
    metrics = metrics_on_digits(tiny_module, Occlusion([0.3, 0.6], patch_size=8, fill=fill, seed=5))
    images, classes = complete_test_set()
    order, fills = random_order((4, 4), 5, range(359)), filling(fill, images, 8, 5, range(359))
    y = [accuracy(tiny_module, images, classes)]
    name = "occlusion_patch8" if fill == "zero" else f"occlusion_{fill}_patch8"
    for ratio in (0.3, 0.6):
        occluded = fills.where(holes(order, ratio, (32, 32))[:, None], images)
        y.append(accuracy(tiny_module, occluded, classes))
        assert metrics[f"test/{name}_{100 * ratio:g}"] == pytest.approx(y[-1], abs=1 / 359)
    area = auc([0, 30, 60], y) / 60
    assert metrics[f"test/{name}_auc_60"] == pytest.approx(area, abs=2 / 359)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratios": [0.5, 1.5]}, r"Occlusion\.ratios=1\.5:"),
        ({"ratios": [0.0]}, r"Occlusion\.ratios=0\.0:"),
        ({"ratios": []}, r"Occlusion\.ratios=\[\]"),
        ({"drops": []}, r"Occlusion\.drops=\[\]"),
        ({"drops": ["salty"]}, r"Occlusion\.drops=salty:.*salient"),
        ({"patch_size": "token"}, r"Occlusion\.patch_size=token:.*model"),
        ({"fill": "black"}, r"Occlusion\.fill=black:"),
        ({"pattern": "epoch"}, r"Occlusion\.pattern=epoch:"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        Occlusion(**arguments)


@pytest.mark.parametrize("patch_size", [0, 5])
def test_a_patch_that_does_not_divide_is_rejected_before_the_first_batch(tiny_module, patch_size):
    with pytest.raises(InputError, match=rf"patch_size={patch_size}\b.*32 x 32"):
        metrics_on_digits(tiny_module, Occlusion(patch_size=patch_size))


def test_validation_does_not_evaluate_occlusion(tiny_module):
    [metrics] = quiet_trainer(Occlusion()).validate(tiny_module, digits(), verbose=False)
    assert not any("occlusion" in name for name in metrics)
