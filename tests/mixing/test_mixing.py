"""Properties of all mixers over random batches, and SMMix in detail."""

import numpy as np
import pytest
import torch
from helpers.mixing_batches import CLASSES, FixedGuide, batches
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl import (
    AttentiveCutMix,
    CutMix,
    FMix,
    GridMix,
    InputError,
    MergeMix,
    MixPro,
    Mixup,
    MixupCutMix,
    NoMix,
    ResizeMix,
    SaliencyMix,
    SMMix,
    SUMix,
    TdAttenMix,
    TLAlign,
    TokenMix,
    TransMix,
)
from smmix_pl.mixing import soft_labels
from smmix_pl.mixing.regions import least_attended, most_attended, window_mask

MIXERS = [
    SMMix(switch_prob=1),
    SMMix(switch_prob=1, per_sample_side=True),
    SMMix(switch_prob=1, per_sample_side=True, guide_prob=0.5),
    SMMix(switch_prob=1, region_choice="random"),
    SMMix(switch_prob=0.5),
    Mixup(),
    CutMix(),
    NoMix(),
    MixupCutMix(),
    TransMix(),
    TokenMix(),
    MixPro(),
    TLAlign(),
    MergeMix(switch_prob=1),
    TdAttenMix(switch_prob=1),
    SUMix(),
    AttentiveCutMix(),
    SaliencyMix(),
    ResizeMix(),
    FMix(),
    GridMix(),
]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
@given(batches())
def test_mixers_are_deterministic_and_labels_follow_lam(mixer, case):
    images, labels, model, seed = case
    images_before, labels_before = images.clone(), labels.clone()
    mixed = mixer(images, labels, model, np.random.default_rng(seed))
    again = mixer(images, labels, model, np.random.default_rng(seed))

    assert torch.equal(images, images_before)
    assert torch.equal(labels, labels_before)
    assert torch.equal(mixed.images, again.images)
    assert torch.equal(mixed.labels, again.labels)
    assert mixed.images.shape == images.shape
    assert mixed.images.dtype == images.dtype
    torch.testing.assert_close(mixed.labels.sum(1), torch.ones(len(images)))
    lam = torch.as_tensor(mixed.lam)
    assert ((lam >= 0) & (lam <= 1)).all()
    torch.testing.assert_close(mixed.labels, lam * labels + (1 - lam) * labels.flip(0))
    if len(images) % 2:
        middle = len(images) // 2
        tolerance = 1e-2 if images.dtype != torch.float32 else 1e-5
        torch.testing.assert_close(
            mixed.images[middle], images[middle], rtol=tolerance, atol=tolerance
        )


@given(batches())
def test_smmix_pastes_the_best_window_over_the_worst(case):
    images, labels, model, seed = case
    mixed = SMMix(switch_prob=1)(images, labels, model, np.random.default_rng(seed))
    side = int(mixed.notes["region_side"])
    attention = model.guide(images).attention
    patch = images.shape[2] // model.grid[0]
    to, best = least_attended(attention, side), most_attended(attention, side)
    size = side * patch
    mask = window_mask(to, side, model.grid)
    assert torch.equal(mixed.regions.source_mask, mask)
    pixels = mask.unflatten(1, model.grid).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    for image in range(len(images)):
        source = len(images) - 1 - image
        outside = ~pixels[image]
        assert torch.equal(mixed.images[image][:, outside], images[image][:, outside])
        if source != image:
            (i, j), (k, m) = (to[image] * patch).tolist(), (best[source] * patch).tolist()
            pasted = mixed.images[image, :, i : i + size, j : j + size]
            assert torch.equal(pasted, images[source, :, k : k + size, m : m + size])
    covered = mask.float().mean(1, keepdim=True)
    torch.testing.assert_close(1 - covered, torch.full_like(covered, mixed.lam))


@given(batches())
def test_teacher_logits_are_mixed_logits(case):
    images, labels, model, seed = case
    mixed = SMMix(switch_prob=1)(images, labels, model, np.random.default_rng(seed))
    logits = model.guide(images).logits
    expected = mixed.lam * logits + (1 - mixed.lam) * logits.flip(0)
    torch.testing.assert_close(mixed.teacher_logits, expected)


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (4, 6)])
def test_smmix_draws_every_side_of_the_range(grid):
    images = torch.randn(2, 3, grid[0], grid[1])
    labels = soft_labels(torch.tensor([0, 1]), CLASSES)
    rng = np.random.default_rng(0)
    sides = {
        SMMix(switch_prob=1)(images, labels, FixedGuide(grid), rng).notes["region_side"]
        for _ in range(300)
    }
    shorter = min(grid)
    assert sides == set(range(max(1, int(shorter * 0.25)), int(shorter * 0.75) + 1))


def test_smmix_switches_to_mixup_at_its_probability():
    images, labels = torch.randn(2, 3, 8, 8), soft_labels(torch.tensor([0, 1]), CLASSES)
    rng = np.random.default_rng(0)
    mixer = SMMix(switch_prob=0.25)
    branch = [
        mixer(images, labels, FixedGuide((4, 4)), rng).regions is not None for _ in range(2000)
    ]
    assert np.mean(branch) == pytest.approx(0.25, abs=0.04)


def test_optional_parts_can_be_disabled():
    images, labels = torch.randn(2, 3, 8, 8), soft_labels(torch.tensor([0, 1]), CLASSES)
    mixer = SMMix(switch_prob=1, fine_grained=False, consistency=False)
    mixed = mixer(images, labels, FixedGuide((4, 4)), np.random.default_rng(0))
    assert mixed.regions is None
    assert mixed.teacher_logits is None


def test_random_regions_without_consistency_need_no_guide_pass():
    class NoGuide:
        grid = (4, 4)

    mixer = SMMix(switch_prob=1, region_choice="random", consistency=False)
    images, labels = torch.randn(2, 3, 8, 8), soft_labels(torch.tensor([0, 1]), CLASSES)
    assert mixer(images, labels, NoGuide(), np.random.default_rng(0)).regions is not None


@given(st.integers(2, 30), st.floats(0, 1))
def test_soft_labels(classes, smoothing):
    labels = soft_labels(torch.arange(classes), classes, smoothing)
    off = smoothing / classes
    expected = torch.full((classes, classes), off).fill_diagonal_(1 - smoothing + off)
    torch.testing.assert_close(labels, expected)


def test_cutmix_lam_is_the_uncovered_area():
    images = torch.stack([torch.zeros(3, 16, 12), torch.ones(3, 16, 12)])
    labels = soft_labels(torch.tensor([0, 1]), CLASSES)
    rng = np.random.default_rng(0)
    for _ in range(50):
        mixed = CutMix()(images, labels, FixedGuide((4, 4)), rng)
        assert 1 - mixed.images[0].mean() == pytest.approx(mixed.lam, abs=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_side_ratio", 1.0),
        ("min_side_ratio", 0.0),
        ("min_side_ratio", 0.8),
        ("switch_prob", 1.5),
        ("mixup_alpha", 0.0),
        ("guide_prob", -0.5),
        ("region_choice", "max"),
    ],
)
def test_invalid_settings_name_the_option(option, value):
    with pytest.raises(InputError, match=f"model.mixer.{option}={value}"):
        SMMix(**{option: value})


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1, 2, 3]), torch.ones(4, CLASSES, dtype=torch.int64)]
)
def test_labels_that_are_not_soft_are_rejected(mixer, labels):
    with pytest.raises(InputError, match=r"soft_labels") as error:
        mixer(torch.randn(4, 3, 8, 8), labels, FixedGuide((4, 4)), np.random.default_rng(0))
    assert str(tuple(labels.shape)) in str(error.value)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([[1, 0, 1], [0, 1, 0]]),  # multi-hot
        torch.tensor([[0.5, 0.5, 0.0]]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([True, False]),
    ],
)
def test_soft_labels_take_class_indices_only(labels):
    with pytest.raises(InputError, match="class indices") as error:
        soft_labels(labels, 3)
    assert str(tuple(labels.shape)) in str(error.value)


def test_soft_labels_take_any_integer_dtype():
    for dtype in (torch.uint8, torch.int32, torch.int64):
        labels = soft_labels(torch.tensor([2, 0], dtype=dtype), 3)
        assert labels.tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("mixer", "grid", "option"),
    [
        (SMMix(), (1, 9), "data.image_size"),
        (MixPro(), (4, 4), "model.mixer.cell_side=4"),
        (MixPro(cell_side=7), (2, 6), "model.mixer.cell_side=7"),
        (TokenMix(), (1, 9), "data.image_size"),
        (TokenMix(source_fraction=0.1), (2, 2), "model.mixer.source_fraction=0.1"),
        (TokenMix(source_fraction=0.9), (2, 2), "model.mixer.source_fraction=0.9"),
    ],
)
def test_a_grid_that_cannot_be_mixed_is_rejected(mixer, grid, option):
    with pytest.raises(InputError, match=option) as error:
        mixer.check_grid(grid)
    assert f"{grid[0]} x {grid[1]}" in str(error.value)


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
@pytest.mark.parametrize("grid", [(5, 5), (2, 7), (14, 14)])
def test_an_accepted_grid_is_mixed(mixer, grid):
    if isinstance(mixer, TLAlign) and min(grid) < 3:  # its boxes have even sides
        with pytest.raises(InputError, match=r"data\.image_size"):
            mixer.check_grid(grid)
        return
    mixer.check_grid(grid)
    if isinstance(mixer, NoMix):
        return
    images = torch.randn(2, 3, grid[0] * 2, grid[1] * 2)
    labels = soft_labels(torch.tensor([0, 1]), CLASSES)
    rng = np.random.default_rng(0)
    batches = [mixer(images, labels, FixedGuide(grid), rng).images for _ in range(20)]
    assert any(not torch.equal(mixed, images) for mixed in batches)
