"""TL-Align, TdAttenMix, and MergeMix, compared with recordings of their released code."""

import numpy as np
import pytest
import torch
from helpers.golden import assert_close, load
from helpers.mixing_batches import Scripted

from smmix_pl import (
    Backbone,
    InputError,
    MergeMix,
    SMMixLoss,
    SMMixModule,
    SUMix,
    TdAttenMix,
    TLAlign,
    soft_labels,
)
from smmix_pl.mixing import Guide
from smmix_pl.mixing.base import Prediction
from smmix_pl.mixing.regions import least_attended, most_attended, window_mask
from smmix_pl.mixing.sumix import semantic_uncertainty
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.token_merging import match, merge, merge_counts, merged_pass

SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(readout, name="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    guide = GuideConfig(readout=readout)
    return Backbone(name, 5, 32, model_args=SMALL, guide=guide, **arguments).eval()


class Seen:
    """A guide model with given attention."""

    def __init__(self, attention):
        self.attention, self.grid = attention, tuple(attention.shape[1:])

    def guide(self, images):
        return Guide(torch.zeros(len(images), 5), self.attention)


def test_tl_align_mixes_and_labels_as_released():
    recorded = load("tl_align.npz")
    backbone = small("rollout")
    weights = {k.removeprefix("param/"): v for k, v in recorded.items() if k.startswith("param/")}
    backbone.model.load_state_dict(weights)
    labels = soft_labels(recorded["labels"], 5, float(recorded["label_smoothing"]))
    rng = Scripted(float(recorded["lam"]), *recorded["center"].tolist())
    mixed = TLAlign()(recorded["images"].float(), labels, backbone, rng)
    assert torch.equal(mixed.images, recorded["mixed"].float())
    assert_close(mixed.labels, recorded["token_labels"][:, 0])  # the class token starts with them

    features = backbone.features(mixed.images / 128 - 1, with_attention=True)
    assert_close(features.logits, recorded["logits"])
    aligned = mixed.attentive_labels(features.attention, features.logits)
    assert_close(aligned, recorded["aligned_labels"])
    assert (aligned - mixed.labels).abs().max() > 1e-3


def test_the_rollout_is_the_product_of_all_blocks():
    backbone = small("rollout", "deit_tiny_distilled_patch16_224")
    maps = []
    for block in backbone.model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    with torch.no_grad():
        backbone.model(PIXELS)
    product = torch.eye(18)
    for found in maps:
        product = (found.mean(1) + torch.eye(18)) / 2 @ product
    attention = backbone.guide(PIXELS).attention
    torch.testing.assert_close(attention.flatten(1), product[:, 0, 2:])


def test_tl_align_trains(tiny_module):
    backbone = small("rollout").train()
    labels = soft_labels(torch.arange(4), 5)
    mixed = TLAlign()(PIXELS.repeat(2, 1, 1, 1), labels, backbone, np.random.default_rng(1))
    SMMixLoss(backbone)(mixed).backward()
    assert all(weight.grad is not None for weight in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "readout"),
    [
        ("swin_tiny_patch4_window7_224", "rollout"),
        ("pvt_tiny", "rollout"),
        ("cait_xxs24_224", "rollout"),
        ("swin_tiny_patch4_window7_224", "merged"),
    ],
)
def test_models_without_such_a_readout_are_rejected(name, readout):
    with pytest.raises(InputError, match=f"readout={readout}"):
        Backbone(name, 5, 224, guide=GuideConfig(readout=readout))


def test_merged_attention_of_mixed_images_is_rejected():
    with pytest.raises(InputError, match=r"model\.guide\.readout=merged"):
        small("merged").features(PIXELS, with_attention=True)


@pytest.mark.parametrize("case", ["equal", "different"])
def test_tdattenmix_mixes_as_released(case):
    recorded = load("tdattenmix.npz")
    grid, side = (int(recorded["side"]),) * 2, int(recorded["region_side"])
    images = recorded[f"{case}/images"].float()
    attention = recorded[f"{case}/attention"].unflatten(1, grid)
    labels = soft_labels(torch.arange(4), 5)
    mixer = TdAttenMix(switch_prob=1)
    mixed = mixer.mix_regions(images, labels, Seen(attention), side, np.random.default_rng(0))
    assert torch.equal(mixed.images, recorded[f"{case}/mixed"].float())
    assert torch.equal(mixed.regions.source_mask, recorded[f"{case}/source_mask"])
    released = recorded[f"{case}/attention_weight"]
    area = 1 - side**2 / (grid[0] * grid[1])
    if case == "equal":  # where its two simplifications change nothing
        assert_close(mixed.lam, ((area + released) / 2).expand(4, 1))
    origin = most_attended(attention.flip(0), side)
    kept = (attention.flatten(1) * ~window_mask(least_attended(attention, side), side, grid)).sum(1)
    misplaced = (attention.flatten(1) * window_mask(origin, side, grid)).sum(1)
    assert_close(kept.sum() / (kept.sum() + misplaced.sum()), released)
    pasted = (attention.flip(0).flatten(1) * window_mask(origin, side, grid)).sum(1)
    assert_close(mixed.lam[:, 0], (area + kept / (kept + pasted)) / 2)
    assert_close(mixed.labels, mixed.lam * labels + (1 - mixed.lam) * labels.flip(0))


def test_tdattenmix_labels_each_size_of_region():
    images, labels = torch.randn(3, 3, 16, 16), soft_labels(torch.arange(3), 5)
    attention = torch.rand(3, 4, 4)
    sides = torch.tensor([1, 2, 3])
    mixer, rng = TdAttenMix(switch_prob=1), np.random.default_rng(0)
    mixed = mixer.mix_regions(images, labels, Seen(attention), sides, rng)
    for row, side in enumerate(sides.tolist()):
        alone = mixer.mix_regions(images, labels, Seen(attention), side, rng)
        torch.testing.assert_close(mixed.lam[row], alone.lam[row])


@pytest.mark.parametrize(
    ("blocks", "total"), [(12, 49), (12, 98), (12, 147), (24, 98), (3, 5), (2, 4)]
)
def test_blocks_merge_as_many_tokens_as_released(blocks, total):
    assert merge_counts(blocks, total) == load("mergemix.npz")[f"counts/{blocks}_{total}"].tolist()


def test_tokens_are_merged_as_released():
    recorded = load("mergemix.npz")
    places = torch.arange(16).expand(3, -1)
    x, sizes = recorded["0/x"], torch.ones(3, 17, 1)
    for step in ("0", "1"):
        assert_close(x, recorded[f"{step}/x"])
        count = int(recorded[f"{step}/count"])
        positions = match(recorded[f"{step}/keys"][:, 1:], count)
        assert torch.equal(positions + 1, recorded[f"{step}/map"][:, 1:])
        x, sizes = merge(x, sizes, positions, 1, x.shape[1] - 1 - count)
        assert_close(x, recorded[f"{step}/merged"])
        assert torch.equal(sizes, recorded[f"{step}/size"])
        places = positions.gather(1, places)
        assert torch.equal(places + 1, recorded[f"{step}/source"][:, 1:])


def test_mergemix_mixes_as_released():
    recorded = load("mergemix.npz")
    images, labels = recorded["images"].float(), soft_labels(torch.arange(3), 5)
    scores = recorded["scores"].unflatten(1, (4, 4))
    rng = Scripted(0.0, float(recorded["lam"]))
    mixed = MergeMix(switch_prob=1)(images, labels, Seen(scores), rng)
    assert torch.equal(mixed.images[::2], recorded["mixed"].float()[::2])
    assert torch.equal(mixed.images[1], images[1])
    assert_close(mixed.lam[:, 0], recorded["lam_mixed"])


def test_merged_tokens_have_no_train_mode():
    """Also where the mixer chooses the readout."""
    settings = {"backbone": "vit_tiny_patch16_224", "backbone_args": SMALL}
    with pytest.raises(InputError, match=r"model\.guide\.mode=train.*readout=merged"):
        SMMixModule(5, (32, 32), 2, MergeMix(), guide=GuideConfig(mode="train"), **settings)


def test_a_pass_that_merges_nothing_is_the_plain_pass():
    backbone = small("merged")
    maps = []
    backbone.model.blocks[-1].attn.fused_attn = False
    backbone.model.blocks[-1].attn.attn_drop.register_forward_pre_hook(
        lambda _, args: maps.append(args[0])
    )
    with torch.no_grad():
        logits = backbone.model(PIXELS)
        found, scores = merged_pass(backbone.model, PIXELS, 0.0)
    torch.testing.assert_close(found, logits)
    torch.testing.assert_close(scores, maps[0].mean(1)[:, 1:, 0])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_merged_tokens_share_their_score(name, ratio):
    torch.manual_seed(0)
    guide = GuideConfig(readout="merged", merge_ratio=ratio)
    backbone = Backbone(name, 5, (32, 48), model_args=SMALL, guide=guide)
    scores = backbone.guide(torch.randn(2, 3, 32, 48)).attention
    assert scores.shape == (2, 4, 6)
    left = 24 - int(24 * ratio) + merge_counts(3, int(24 * ratio))[-1]
    assert all(len(one.unique()) == left for one in scores)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_sumix_weights_labels_as_released(reduction):
    """As released with its own cross entropy, and with one that keeps the images apart."""
    recorded = load("sumix.npz")
    mixed, unmixed = (
        Prediction(recorded[f"{name}_logits"], recorded[f"{name}_uncertainty_logits"])
        for name in ("mixed", "unmixed")
    )
    labels = soft_labels(recorded["labels"], 7)
    weights, loss = semantic_uncertainty(mixed, unmixed, labels, float(recorded["lam"]))
    assert weights.std() > 1e-3
    errors = -(labels * mixed.logits.log_softmax(1)).sum(1, keepdim=True)
    others = -(labels.flip(0) * mixed.logits.log_softmax(1)).sum(1, keepdim=True)
    if reduction == "mean":
        classification = errors.mean() * weights.mean() + others.mean() * (1 - weights.mean())
    else:
        classification = (errors * weights + others * (1 - weights)).mean()
    assert_close(classification + 0.5 * loss, recorded[f"loss_{reduction}"].mean())


def test_sumix_trains_with_a_second_pass():
    backbone = small("tokens").train()
    labels = soft_labels(torch.arange(4), 5)
    images = PIXELS.repeat(2, 1, 1, 1)
    mixed = SUMix(alpha=1, uncertainty=0.3)(images, labels, backbone, np.random.default_rng(1))
    terms = SMMixLoss(backbone).terms(mixed)
    assert terms.keys() == {"classification", "uncertainty"}
    sum(terms.values()).backward()
    assert all(weight.grad is not None for weight in backbone.parameters())
    assert backbone.token_head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("option", "value"), [("alpha", 0.0), ("uncertainty", -1.0)])
def test_invalid_settings_of_sumix_name_the_option(option, value):
    with pytest.raises(InputError, match=f"model.mixer.{option}={value}"):
        SUMix(**{option: value})
