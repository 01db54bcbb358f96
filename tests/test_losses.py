"""Losses, compared with their formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.loss import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch.nn import functional as F

from smmix_pl import InputError
from smmix_pl.losses import (
    BinaryCrossEntropy,
    LossConfig,
    consistency_loss,
    fine_grained_losses,
    label_loss,
    soft_cross_entropy,
    weighted_sum,
)
from smmix_pl.mixing import Regions, soft_labels
from smmix_pl.mixing.base import blend_labels


def random_case(seed, batch=6, classes=7):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator)
    labels = torch.rand(batch, classes, generator=generator).softmax(1)
    return logits, labels


@given(st.integers(0, 2**32 - 1))
def test_soft_cross_entropy(seed):
    logits, labels = random_case(seed)
    probabilities = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    expected = -(labels * probabilities.log()).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, labels), expected.float())


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_soft_cross_entropy_of_smoothed_labels_equals_torch(seed, smoothing):
    logits, _ = random_case(seed)
    classes = torch.arange(6)
    ours = soft_cross_entropy(logits, soft_labels(classes, 7, smoothing))
    torch.testing.assert_close(ours, F.cross_entropy(logits, classes, label_smoothing=smoothing))


@given(st.integers(0, 2**32 - 1))
def test_consistency_is_the_divergence_from_the_teacher(seed):
    logits, _ = random_case(seed)
    teacher_logits, _ = random_case(seed + 1)
    q, p = teacher_logits.double().softmax(1), logits.double().softmax(1)
    expected = (q * (q / p).log()).sum(1).mean()
    torch.testing.assert_close(consistency_loss(logits, teacher_logits), expected.float())


def test_consistency_of_a_model_with_itself_is_zero():
    logits, _ = random_case(0)
    assert consistency_loss(logits, logits).item() == pytest.approx(0, abs=1e-7)


def test_no_gradient_reaches_the_teacher():
    logits, _ = random_case(0)
    teacher = logits.clone().requires_grad_()
    student = (logits + 1).requires_grad_()
    consistency_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_fine_grained_loss_compares_each_region_with_its_own_image():
    _, labels = random_case(0)
    perfect = labels.log()
    other = labels.flip(0)
    mask = torch.zeros(6, 4, dtype=torch.bool)
    regions = Regions(mask, labels, other)
    entropy = soft_cross_entropy(perfect, labels)
    right = fine_grained_losses(perfect, other.log(), regions)
    wrong = fine_grained_losses(other.log(), perfect, regions)
    for name in ("fine_grained_target", "fine_grained_source"):
        torch.testing.assert_close(right[name], entropy)
        assert wrong[name] > entropy


def test_losses_are_float32_under_half_precision():
    logits, labels = random_case(0)
    for dtype in (torch.float16, torch.bfloat16):
        assert soft_cross_entropy(logits.to(dtype), labels).dtype == torch.float32
        assert consistency_loss(logits.to(dtype), logits.to(dtype)).dtype == torch.float32


def test_weighted_sum():
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(3.0), "c": torch.tensor(5.0)}
    assert weighted_sum(losses, {"b": 0.5, "c": 0.0}).item() == 3.5


@given(st.integers(0, 2**32 - 1))
def test_binary_cross_entropy_is_the_mean_over_images_and_classes(seed):
    logits, labels = random_case(seed)
    p = logits.double().sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(BinaryCrossEntropy()(logits, labels), expected.float())
    weights = torch.rand(7) * 3
    weighted = -(weights * labels * p.log() + (1 - labels) * (1 - p).log()).mean().float()
    torch.testing.assert_close(BinaryCrossEntropy(weights)(logits, labels), weighted)


@given(st.integers(0, 2**32 - 1))
def test_binary_consistency_is_the_mean_divergence(seed):
    logits, _ = random_case(seed)
    teacher, _ = random_case(seed + 1)
    q, p = teacher.double().sigmoid(), logits.double().sigmoid()
    expected = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    torch.testing.assert_close(BinaryCrossEntropy().divergence(logits, teacher), expected.float())


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
def test_binary_loss_equals_timms(threshold):
    logits, _ = random_case(0)
    labels = blend_labels(soft_labels(torch.arange(6), 7), 0.7)
    theirs = TimmBinaryCrossEntropy(smoothing=0.0, target_threshold=threshold)(logits, labels)
    config = LossConfig(classification="binary", target_threshold=threshold)
    torch.testing.assert_close(label_loss(config)(logits, labels), theirs)


def test_balanced_weights_follow_the_counts():
    counts = torch.tensor([6, 2, 0]), 8
    weights = label_loss(LossConfig(class_weights="balanced"), counts).weights
    torch.testing.assert_close(weights, torch.tensor([8 / 18, 8 / 6, 8 / 3]))
    binary = LossConfig(classification="binary", class_weights="balanced")
    positive = label_loss(binary, counts).positive_weights
    torch.testing.assert_close(positive, torch.tensor([2 / 6, 3.0, 8.0]))
    logits, labels = random_case(0, classes=3)
    expected = -(weights * labels * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, labels, weights), expected)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"classification": "bce"}, "classification=bce"),
        ({"target_threshold": 0.2}, "target_threshold=0.2"),
        ({"classification": "binary", "target_threshold": 1.0}, "target_threshold=1.0"),
        ({"class_weights": "equal"}, "class_weights=equal"),
        ({"classification": "binary", "distillation": "hard"}, "distillation=hard"),
    ],
)
def test_invalid_losses_name_the_option(options, named):
    with pytest.raises(InputError, match=f"model.losses.{named}"):
        LossConfig(**options)
