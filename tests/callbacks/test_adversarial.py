"""FGSM and PGD compared with closed forms of linear models, and through the callbacks."""

import numpy as np
import pytest
import torch
from helpers.digits import metrics_on_digits
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from smmix_pl import InputError
from smmix_pl.callbacks import FGSM, PGD
from smmix_pl.robustness.attacks import ascent, fgsm, pgd, pixel_scale, random_start

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

seeds = st.integers(0, 2**31 - 1)
strengths = st.floats(0.25, 255)


def linear(seed, num_classes=4, images=5):
    """Return a linear model of 2 x 2 pixels, its weight, random normalized images, and classes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_classes, 12, generator=generator)
    pixels = torch.randint(256, (images, 3, 2, 2), generator=generator) / 255
    classes = torch.randint(num_classes, (images,), generator=generator)

    def model(x):
        return x.flatten(1) @ weight.T

    return model, weight, normalized(pixels), classes


def normalized(pixels):
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def pixel_values(images):
    """Convert normalized images to 0 to 255, in float64."""
    shift, spread = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (MEAN, STD))
    return 255 * (images.double() * spread + shift)


def analytic_signs(weight, images, classes):
    """The gradient of the cross entropy of W x is W^T (softmax - one-hot)."""
    logits = images.flatten(1).double() @ weight.T.double()
    error = logits.softmax(1) - torch.eye(len(weight))[classes]
    return (error @ weight.double()).sign().view_as(images)


@given(seeds, strengths)
def test_fgsm_is_one_signed_step_in_pixel_values(seed, eps):
    model, weight, images, classes = linear(seed)
    attacked = fgsm(model, images, classes, eps, pixel_scale(MEAN, STD, images))
    signs = analytic_signs(weight, images, classes)
    expected = (pixel_values(images) + eps * signs).clamp(0, 255)
    torch.testing.assert_close(pixel_values(attacked), expected, atol=1e-3, rtol=0)


@given(seeds, strengths, st.floats(0.1, 20), st.integers(1, 12))
def test_pgd_of_two_classes_equals_its_closed_form(seed, eps, step, steps):
    """The sign of the gradient is constant: the steps add up until they reach the limit."""
    model, weight, images, classes = linear(seed, num_classes=2)
    start = random_start(images, seed, range(5))
    attacked = pgd(model, images, classes, eps, pixel_scale(MEAN, STD, images), start, step, steps)
    pixels = pixel_values(images)
    low, high = (pixels - eps).clamp(min=0), (pixels + eps).clamp(max=255)
    begin = (pixels + eps * start.double()).clamp(low, high)
    signs = (weight[1 - classes] - weight[classes]).sign().view_as(images)
    expected = (begin + steps * step * signs).clamp(low, high)
    torch.testing.assert_close(pixel_values(attacked), expected, atol=2e-3, rtol=0)


@given(seeds, strengths)
def test_pgd_stays_within_the_limit_and_within_valid_pixels(seed, eps):
    model, _, images, classes = linear(seed)
    start = random_start(images, seed, range(5))
    attacked = pgd(model, images, classes, eps, pixel_scale(MEAN, STD, images), start, step=7.0)
    values = pixel_values(attacked)
    assert (values - pixel_values(images)).abs().max() <= eps + 1e-3
    assert values.min() >= -1e-3
    assert values.max() <= 255 + 1e-3


@given(seeds, strengths)
def test_one_pgd_step_from_the_image_equals_fgsm(seed, eps):
    model, _, images, classes = linear(seed)
    scale = pixel_scale(MEAN, STD, images)
    start = torch.zeros_like(images)
    one = pgd(model, images, classes, eps, scale, start, step=eps, steps=1)
    torch.testing.assert_close(one, fgsm(model, images, classes, eps, scale))


@given(seeds, st.integers(0, 8))
def test_a_random_start_depends_on_the_place_only(seed, cut):
    images = torch.zeros(9, 3, 4, 4)
    complete = random_start(images, seed, range(9))
    parts = [random_start(images[rows], seed, rows) for rows in (range(cut), range(cut, 9)) if rows]
    assert torch.equal(complete, torch.cat(parts))
    assert complete.abs().max() <= 1
    assert len({tuple(start.tolist()) for start in complete.flatten(1)}) == 9


def test_stronger_attacks_lower_the_accuracy_of_a_trained_linear_model():
    pixels, labels = load_digits(return_X_y=True)
    solver = LogisticRegression(max_iter=200, C=0.01).fit(pixels / 16, labels)
    weight, bias = (torch.tensor(x).float() for x in (solver.coef_, solver.intercept_))
    images = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8)
    classes = torch.tensor(labels)
    scale = pixel_scale((0.0,), (1.0,), images)

    def model(x):
        return x.flatten(1) @ weight.T + bias

    def accuracy(x):
        return float((model(x).argmax(1) == classes).float().mean())

    by_eps = [accuracy(fgsm(model, images, classes, eps, scale)) for eps in (8, 16, 32, 64)]
    assert accuracy(images) > 0.9
    assert all(np.diff([accuracy(images), *by_eps]) < 0)
    start = random_start(images, 0, range(len(images)))
    attacked = pgd(model, images, classes, 32, scale, start, step=8)
    assert accuracy(attacked) <= by_eps[2] + 0.01
    noisy = (images + 32 / 255 * start).clamp(0, 1)
    assert accuracy(noisy) > by_eps[2] + 0.1


def test_a_confident_prediction_is_attacked_in_the_right_direction():
    """At log odds of 30, the probability is 1 in float32 and its gradient 0."""
    weight = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    images = torch.tensor([[30.0, 0.0]]).view(1, 2, 1, 1)
    signs = ascent(lambda x: x.flatten(1) @ weight.T, images, torch.tensor([0]))
    assert signs.flatten().tolist() == [-1, 1]


def test_gradients_are_computed_in_inference_mode_and_not_kept():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.GELU(), nn.Flatten(), nn.Linear(4, 3))
    images, classes = torch.randn(2, 3, 2, 2), torch.tensor([0, 2])
    outside = ascent(network, images, classes)
    with torch.inference_mode():
        inside = ascent(network, images + 0, classes + 0)
        assert not torch.is_grad_enabled()
    assert torch.equal(outside, inside)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_callbacks_log_each_strength_and_do_not_change_the_model(tiny_module):
    before = {name: value.clone() for name, value in tiny_module.state_dict().items()}
    attacks = FGSM([8, 2]), PGD([4.5], steps=3)
    metrics = metrics_on_digits(tiny_module, *attacks)
    names = {"test/fgsm_2", "test/fgsm_8", "test/pgd_4.5"}
    assert {name for name in metrics if "gd" in name or "fgsm" in name} == names
    assert metrics["test/fgsm_8"] <= metrics["test/fgsm_2"] <= metrics["test/top1"]
    assert attacks[1].result.protocol["start"] == "random"
    for name, value in tiny_module.state_dict().items():
        assert torch.equal(value, before[name]) or "accuracy" in name, name
    assert all(parameter.grad is None for parameter in tiny_module.parameters())


@pytest.mark.slow
def test_pgd_does_not_depend_on_the_batch(tiny_module):
    one, other = (
        metrics_on_digits(tiny_module, PGD([8], steps=2), batch_size=size)["test/pgd_8"]
        for size in (64, 359)
    )
    assert one == pytest.approx(other, abs=2 / 359)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM([0]), r"FGSM\.eps=0:"),
        (lambda: FGSM([8, 256]), r"FGSM\.eps=256:"),
        (lambda: PGD([]), r"PGD\.eps=\[\]"),
        (lambda: PGD(steps=0), r"PGD\.steps=0:"),
        (lambda: PGD(step=-1), r"PGD\.step=-1:"),
    ],
)
def test_invalid_arguments_are_rejected(make, message):
    with pytest.raises(InputError, match=message):
        make()
