"""Parity with recordings of the authors' code (tests/golden/README.md)."""

import pytest
import torch
from helpers.golden import (
    MIXINGS,
    STEPS,
    assert_close,
    load,
    mix_as_recorded,
    recorded_module,
)

from smmix_pl.mixing.regions import least_attended, most_attended, paste, window_mask


@pytest.mark.parametrize("name", MIXINGS)
def test_max_min_mixing_is_exact(name):
    recorded = load(name)
    grid = (int(recorded["side"]),) * 2
    region_side = int(recorded["region_side"])
    images, attention = recorded["images"], recorded["attention"].unflatten(1, grid)
    to = least_attended(attention, region_side)
    origin = most_attended(attention.flip(0), region_side)

    assert torch.equal(
        paste(images, images.flip(0), to, origin, region_side, grid), recorded["mixed"]
    )
    source_mask = window_mask(to, region_side, grid)
    assert torch.equal(source_mask, recorded["source_mask"])
    assert torch.equal(~source_mask, recorded["target_mask"])


@pytest.fixture(scope="module", params=STEPS)
def recording(request):
    return request.param, load(request.param)


@pytest.fixture
def recorded_step(recording):
    return recording[1]


@pytest.fixture
def step_module(recording):
    return recorded_module(*recording)


def test_guide_pass(step_module, recorded_step):
    guide = step_module.backbone.guide(recorded_step["images"])
    assert_close(guide.logits, recorded_step["unmixed_logits"])
    assert_close(guide.attention.flatten(1), recorded_step["attention"])


def test_mixed_batch(step_module, recorded_step):
    mixed = mix_as_recorded(step_module, recorded_step)
    assert torch.equal(mixed.images, recorded_step["mixed"])
    assert torch.equal(mixed.regions.source_mask, recorded_step["source_mask"])
    assert mixed.lam == float(recorded_step["lam"])
    assert_close(mixed.labels, recorded_step["mixed_target"])


def test_training_pass_losses_and_gradients(step_module, recorded_step):
    mixed = mix_as_recorded(step_module, recorded_step)
    backbone = step_module.backbone
    logits, tokens, *_ = backbone.features(mixed.images)
    assert_close(logits, recorded_step["class_logits"])
    source = mixed.regions.source_mask
    by_region = backbone.region_logits(tokens, torch.stack((~source, source), dim=1))
    assert_close(by_region[:, 0], recorded_step["target_logits"])
    assert_close(by_region[:, 1], recorded_step["source_logits"])

    losses = step_module.criterion.terms(mixed)
    assert_close(losses["classification"], recorded_step["loss_cls"])
    fine_grained = (losses["fine_grained_target"] + losses["fine_grained_source"]) / 2
    assert_close(fine_grained, recorded_step["loss_fine"])
    assert_close(losses["consistency"], recorded_step["loss_con"])
    total = step_module.criterion.total(losses)
    assert_close(total, recorded_step["loss"])

    total.backward()
    for name, weight in backbone.named_parameters():
        expected = recorded_step[f"grad_norm/{name.removeprefix('model.')}"]
        assert_close(weight.grad.norm(), expected)
