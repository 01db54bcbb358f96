"""PuzzleMix compared with all possible masks and with the released code, and in training."""

from itertools import product

import numpy as np
import pytest
import torch
from helpers.golden import assert_close, load
from helpers.mixing_batches import CLASSES
from helpers.programs import run_here
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl import Backbone, InputError, PuzzleMix, soft_labels
from smmix_pl.mixing.grid_cut import cheapest_levels

CASES = ["two", "three", "moved", "fine"]
STD = (1 / 255,) * 3
"""The recordings were made for images that are not normalized."""


class Differentiable:
    """A guide model whose loss is the cross entropy of a linear layer."""

    grid = (1, 1)

    def input_gradient(self, images, labels):
        with torch.enable_grad():
            leaf = images.float().requires_grad_()
            pixels = leaf.square().flatten(1)
            logits = pixels @ torch.arange(CLASSES * pixels.shape[1]).sin().view(-1, CLASSES)
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            return torch.autograd.grad(loss, leaf)[0]


def energy(unary, down, across, labels, levels):
    """Return the energies of masks `(M, N, N)` of one grid."""

    def difference(first, second):
        return (first - second) ** 2 / (levels - 1) ** 2

    chosen = np.take_along_axis(unary[None], labels[..., None], axis=3)
    return (
        chosen.sum((1, 2, 3))
        + (down * difference(labels[:, :-1], labels[:, 1:])).sum((1, 2))
        + (across * difference(labels[:, :, :-1], labels[:, :, 1:])).sum((1, 2))
    )


@pytest.mark.parametrize(("side", "levels"), [(2, 2), (2, 3), (2, 5), (3, 2)])
@given(st.integers(0, 2**32 - 1))
def test_the_cut_finds_the_cheapest_of_all_masks(side, levels, seed):
    rng = np.random.default_rng(seed)
    strength = rng.choice([1, 10, 100, 1000])
    unary = rng.integers(-500, 500, (2, side, side, levels))
    down = rng.integers(0, strength + 1, (2, side - 1, side))
    across = rng.integers(0, strength + 1, (2, side, side - 1))
    masks = np.array(list(product(range(levels), repeat=side**2))).reshape(-1, side, side)
    found = cheapest_levels(unary, down, across)
    for image in range(2):
        costs = unary[image], down[image], across[image]
        own = energy(*costs, found[image : image + 1], levels)
        assert own == pytest.approx(energy(*costs, masks, levels).min())


def recorded(case):
    """Return the mixer of a case, images, labels, saliency, blocks, and the recording."""
    recording = load("puzzlemix.npz")
    blocks, levels, transport, size = recording[f"{case}/settings"].tolist()
    size = None if size < 0 else size
    mixer = PuzzleMix(levels=levels, transport=bool(transport), transport_size=size, std=STD)
    images, saliency = recording["images"].float(), recording["saliency"].float()
    labels = soft_labels(torch.arange(len(images)), CLASSES)
    values = {name: recording[f"{case}/{name}"] for name in ("mask", "mixed", "lam", "lam_mixed")}
    return mixer, images, labels, saliency, blocks, values


@pytest.mark.parametrize("case", CASES)
def test_masks_are_no_worse_than_released(case):
    mixer, images, _, saliency, blocks, released = recorded(case)
    lam = float(released["lam"])
    costs = mixer.energy(images, saliency, blocks, lam)
    ours = (mixer.levels - 1) * (1 - mixer.mask(images, saliency, blocks, lam).numpy())
    theirs = (mixer.levels - 1) * (1 - released["mask"].numpy())
    for image in range(len(images)):
        own, other = (
            float(energy(*(cost[image] for cost in costs), mask[None].astype(int), mixer.levels)[0])
            for mask in (ours[image].round(), theirs[image].round())
        )
        assert own <= other
        assert own == pytest.approx(other, rel=0.02)
    if mixer.levels == 2:
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("case", CASES)
def test_images_are_moved_and_mixed_as_released(case):
    mixer, images, labels, saliency, _, released = recorded(case)
    mixed = mixer.mix(images, labels, saliency, released["mask"])
    assert torch.equal((mixer.levels - 1) * mixed.images, released["mixed"].float())
    assert_close(mixed.lam[:, 0], released["lam_mixed"])


@given(
    batch=st.integers(1, 5),
    sides=st.tuples(st.sampled_from([2, 4, 6, 12, 16]), st.sampled_from([2, 8, 10, 16])),
    levels=st.integers(2, 4),
    transport=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_follow_the_mask_and_draws_repeat(batch, sides, levels, transport, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, *sides, generator=generator)
    before = images.clone()
    labels = soft_labels(torch.arange(batch) % CLASSES, CLASSES, 0.1)
    mixer = PuzzleMix(levels=levels, transport=transport)
    mixed, again = (
        mixer(images, labels, Differentiable(), np.random.default_rng(seed)) for _ in range(2)
    )
    assert torch.equal(images, before)
    assert torch.equal(mixed.images, again.images)
    assert ((mixed.lam >= 0) & (mixed.lam <= 1)).all()
    assert_close(mixed.labels, mixed.lam * labels + (1 - mixed.lam) * labels.flip(0))
    if batch % 2:
        assert torch.equal(mixed.images[batch // 2], images[batch // 2])
    if not transport:
        low, high = torch.minimum(images, images.flip(0)), torch.maximum(images, images.flip(0))
        assert ((mixed.images >= low - 1e-5) & (mixed.images <= high + 1e-5)).all()


@pytest.mark.parametrize(("lam", "kept"), [(1.0, 1.0), (0.0, 0.0)])
def test_a_strong_prior_keeps_the_mixing_ratio(lam, kept):
    mixer = PuzzleMix(eta=50.0)
    _, images, _, saliency, *_ = recorded("two")
    assert (mixer.mask(images, saliency, 8, lam) == kept).all()


def test_the_gradient_at_the_pixels_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "drop_path_rate": 0.5}
    backbone = Backbone("vit_tiny_patch16_224", CLASSES, 32, model_args=args).train()
    images, labels = torch.randn(2, 3, 32, 32), soft_labels(torch.arange(2), CLASSES, 0.1)
    with torch.no_grad():
        found = backbone.input_gradient(images, labels)
        assert not torch.is_grad_enabled()
    assert all(one.training for one in backbone.modules())
    assert all(weight.grad is None for weight in backbone.parameters())
    backbone.eval()
    step = torch.randn_like(images)
    with torch.no_grad():
        losses = [
            -(labels * backbone(images + side * 1e-3 * step).log_softmax(1)).sum()
            for side in (1, -1)
        ]
    slope = (losses[0] - losses[1]) / 2e-3
    torch.testing.assert_close((found * step).sum(), slope, rtol=1e-2, atol=1e-3)


def test_puzzlemix_trains(tmp_path):
    run_here(
        *("fit", "--config=digits.yaml", "--model.mixer=PuzzleMix", "--trainer.max_steps=2"),
        "--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}",
        *("--data.batch_size=8", "--test_after_fit=false", "--trainer.log_every_n_steps=1"),
        cwd=tmp_path,
    )
    assert list(tmp_path.glob("runs/**/metrics.csv"))


def test_images_that_cannot_be_halved_are_rejected():
    images, labels = torch.randn(2, 3, 9, 8), soft_labels(torch.arange(2), CLASSES)
    with pytest.raises(InputError, match=r"data\.image_size=\[9, 8\]"):
        PuzzleMix()(images, labels, Differentiable(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("alpha", 0.0), ("levels", 1), ("beta", -1.0), ("gamma", 1.5), ("eta", -0.1)),
        *(("neighborhood", 0), ("transport_cost", -1.0), ("transport_size", 0)),
    ],
)
def test_invalid_settings_name_the_option(option, value):
    with pytest.raises(InputError, match=f"model.mixer.{option}={value}"):
        PuzzleMix(**{option: value})
