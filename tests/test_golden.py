"""Parity with recordings of the authors' code (golden/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_runs import TINY

from smmix_pl import SMMix, SMMixModule
from smmix_pl.losses import weighted_sum
from smmix_pl.mixing import soft_labels
from smmix_pl.mixing.regions import least_attended, most_attended, paste, window_mask

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / name) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("mixing_*.npz")))
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


STEPS = {
    "step_deit.npz": ("deit_tiny_patch16_224", TINY),
    "step_pvt.npz": ("pvt_tiny", {"embed_dims": (16, 32, 40, 64), "depths": (1, 1, 2, 2)}),
}


@pytest.fixture(scope="module", params=STEPS)
def recording(request):
    return request.param, load(request.param)


@pytest.fixture
def recorded_step(recording):
    return recording[1]


@pytest.fixture
def step_module(recording):
    name, recorded_step = recording
    backbone, args = STEPS[name]
    module = SMMixModule(
        num_classes=10,
        image_size=tuple(recorded_step["images"].shape[2:]),
        batch_size=8,
        mixer=SMMix(),
        backbone=backbone,
        backbone_args=args,
    ).train()
    module.backbone.load_state_dict(
        {
            name if name.startswith("token_head") else f"model.{name}": value
            for key, value in recorded_step.items()
            if key.startswith("param/")
            for name in [key.removeprefix("param/")]
        }
    )
    return module


def mix(module, recorded):
    labels = soft_labels(recorded["labels"], 10, float(recorded["label_smoothing"]))
    side = int(recorded["region_side"])
    return module.mixer.mix_regions(
        recorded["images"], labels, module.backbone, side, np.random.default_rng(0)
    )


def close(ours, theirs):
    torch.testing.assert_close(ours.detach().double(), theirs.double(), rtol=1e-4, atol=1e-6)


def test_guide_pass(step_module, recorded_step):
    guide = step_module.backbone.guide(recorded_step["images"])
    close(guide.logits, recorded_step["unmixed_logits"])
    close(guide.attention.flatten(1), recorded_step["attention"])


def test_mixed_batch(step_module, recorded_step):
    mixed = mix(step_module, recorded_step)
    assert torch.equal(mixed.images, recorded_step["mixed"])
    assert torch.equal(mixed.regions.source_mask, recorded_step["source_mask"])
    assert mixed.lam == float(recorded_step["lam"])
    close(mixed.labels, recorded_step["mixed_target"])


def test_training_pass_losses_and_gradients(step_module, recorded_step):
    mixed = mix(step_module, recorded_step)
    backbone = step_module.backbone
    logits, tokens, _ = backbone.features(mixed.images)
    close(logits, recorded_step["class_logits"])
    source = mixed.regions.source_mask
    by_region = backbone.region_logits(tokens, torch.stack((~source, source), dim=1))
    close(by_region[:, 0], recorded_step["target_logits"])
    close(by_region[:, 1], recorded_step["source_logits"])

    losses = step_module.losses(mixed)
    close(losses["classification"], recorded_step["loss_cls"])
    fine_grained = (losses["fine_grained_target"] + losses["fine_grained_source"]) / 2
    close(fine_grained, recorded_step["loss_fine"])
    close(losses["consistency"], recorded_step["loss_con"])
    total = weighted_sum(losses, step_module.loss_weights)
    close(total, recorded_step["loss"])

    total.backward()
    for name, parameter in backbone.named_parameters():
        close(parameter.grad.norm(), recorded_step[f"grad_norm/{name.removeprefix('model.')}"])
