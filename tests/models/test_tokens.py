"""Guidance by the similarity of image tokens to the output: readout `similarity`."""

import numpy as np
import pytest
import torch
from helpers.backbone_state import IMAGES, same, state
from helpers.small_runs import TINY

from smmix_pl import Backbone, InputError, SMMix, SMMixModule, TransMix, soft_labels
from smmix_pl.models.guide_config import GuideConfig

SIMILARITY = GuideConfig(readout="similarity")
STAGES = {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
PIXELS = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def vit(guide=SIMILARITY, **arguments):
    torch.manual_seed(0)
    return Backbone("vit_tiny_patch16_224", 10, 32, guide=guide, model_args=TINY, **arguments)


def test_similarity_to_the_class_token():
    backbone = vit().train()
    guide = backbone.guide(IMAGES)
    with torch.no_grad():
        outputs = backbone.model.eval().forward_features(IMAGES)
        directions = outputs / outputs.norm(dim=2, keepdim=True)
        cosine = (directions[:, :1] * directions[:, 1:]).sum(2)
        logits = backbone.model(IMAGES)
    torch.testing.assert_close(guide.attention.flatten(1), (1 + cosine) / 2)
    torch.testing.assert_close(guide.logits, logits)
    assert not guide.attention.requires_grad
    training = backbone.features(IMAGES, with_attention=True).attention
    torch.testing.assert_close(training, guide.attention)
    assert not training.requires_grad


def test_similarity_to_the_mean_token_of_a_model_that_averages():
    backbone = Backbone("pvt_v2_b0", 5, 128, guide=SIMILARITY, model_args=STAGES)
    tokens = backbone.eval().features(PIXELS).tokens.detach()
    expected = torch.stack(
        [torch.cosine_similarity(image.mean(0), image) for image in tokens.unbind()]
    )
    torch.testing.assert_close(backbone.guide(PIXELS).attention.flatten(1), (1 + expected) / 2)


def test_similarity_keeps_attention_fused_and_all_state():
    backbone = vit().train()
    backbone.model.norm.eval()
    unfused = []
    for block in backbone.model.blocks:
        block.attn.attn_drop.register_forward_pre_hook(lambda *_: unfused.append(1))
    before = state(backbone)
    backbone.guide(IMAGES)
    same(before, state(backbone))
    assert not unfused


def test_similarity_under_autocast_is_that_of_float32_outputs():
    backbone = vit()
    precise = backbone.guide(IMAGES).attention
    with torch.autocast("cpu", torch.bfloat16):
        rounded = backbone.guide(IMAGES).attention
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, precise, rtol=0, atol=0.01)


def test_similarity_at_another_guide_size_is_resized_to_the_training_grid():
    backbone = Backbone(
        "vit_tiny_patch16_224",
        10,
        (32, 16),
        guide=GuideConfig(readout="similarity", size=(16, 32)),  # as many tokens, other rows
        model_args=TINY,
    )
    images = IMAGES[..., :16]
    small = torch.nn.functional.interpolate(images, (16, 32), mode="bilinear", antialias=True)
    outputs = backbone.eval().model.forward_features(small).detach()
    cosine = torch.cosine_similarity(outputs[:, :1], outputs[:, 1:], dim=2).view(2, 1, 4, 8)
    expected = torch.nn.functional.interpolate((1 + cosine) / 2, (8, 4), mode="bilinear")
    torch.testing.assert_close(backbone.guide(images).attention, expected[:, 0])


@pytest.mark.parametrize("mixer", [SMMix(switch_prob=1), TransMix(switch_prob=1)])
@pytest.mark.parametrize(
    "name",
    ["resnet18", "edgenext_xx_small", "vit_base_patch16_reg4_gap_256"],
    ids=["convolutions", "attention over channels", "registers"],
)
def test_models_without_a_map_to_read_train_by_similarity(name, mixer):
    args = TINY if name.startswith("vit") else None
    module = SMMixModule(
        *(5, (64, 64), 2, mixer), backbone=name, backbone_args=args, guide=SIMILARITY
    )
    labels = soft_labels(torch.tensor([0, 1]), 5)
    images = PIXELS[..., :64, :64]
    mixed = mixer(images, labels, module.backbone, np.random.default_rng(0))
    losses = module.criterion.terms(mixed)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(weight.grad is not None for weight in module.backbone.model.parameters())


def test_similarity_has_no_block_to_choose():
    with pytest.raises(InputError, match=r"guide\.block=2.*guide\.readout=similarity"):
        GuideConfig(readout="similarity", block=2)


@pytest.mark.parametrize("readout", ["tokens", "class"])
def test_the_refusal_of_a_map_names_similarity(readout):
    with pytest.raises(InputError, match=r"model\.guide\.readout=similarity"):
        Backbone("resnet18", 5, 64, guide=GuideConfig(readout=readout))


def test_models_without_image_tokens_remain_rejected():
    with pytest.raises(InputError, match=r"model\.backbone=pit_ti_224.* 0 image tokens"):
        Backbone("pit_ti_224", 5, 224, guide=SIMILARITY)
