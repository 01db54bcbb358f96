"""Backbone: tap, tokens, token head and guide pass of timm's plain ViT family."""

import pytest
import torch
from helpers.backbone_state import IMAGES, same, state
from helpers.small_runs import TINY

from smmix_pl import Backbone, InputError
from smmix_pl.models.guide_config import GuideConfig

VITS = [
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
]


def slow_attention(model, images):
    """The last block's attention from its queries and keys, by hand."""
    inputs = []
    attention = model.blocks[-1].attn
    handle = attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    batch, length, width = inputs[0].shape
    heads = attention.num_heads
    qkv = attention.qkv(inputs[0]).reshape(batch, length, 3, heads, width // heads)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1)
    prefix = model.num_prefix_tokens
    return weights[:, :, prefix:, prefix:].mean((1, 2)), weights[:, :, 0, prefix:].mean(1)


@pytest.mark.parametrize("name", VITS)
def test_guide_of_the_vit_family(name):
    torch.manual_seed(0)
    backbone = Backbone(name, 10, (32, 32), model_args=TINY).train()
    guide = backbone.guide(IMAGES)
    of_tokens, _ = slow_attention(backbone.model, IMAGES)
    assert guide.attention.shape == (2, 8, 8)
    torch.testing.assert_close(guide.attention.flatten(1), of_tokens.detach())
    torch.testing.assert_close(guide.logits, backbone.model.eval()(IMAGES).detach())
    assert not guide.logits.requires_grad


def test_class_attention_is_the_class_tokens_row():
    guide = GuideConfig(readout="class")
    backbone = Backbone("vit_tiny_patch16_224", 10, 32, guide=guide, model_args=TINY)
    _, of_class = slow_attention(backbone.model, IMAGES)
    torch.testing.assert_close(backbone.guide(IMAGES).attention.flatten(1), of_class.detach())


@pytest.mark.parametrize("training", [True, False])
def test_guide_changes_no_state(tiny_backbone, training):
    tiny_backbone.train(training)
    tiny_backbone.model.norm.eval()  # a module whose mode differs from the rest keeps it
    before = state(tiny_backbone)
    tiny_backbone.guide(IMAGES)
    same(before, state(tiny_backbone))


def test_guide_that_raises_changes_no_state(tiny_backbone):
    tiny_backbone.train()
    before = state(tiny_backbone)
    with pytest.raises(AssertionError):
        tiny_backbone.guide(torch.zeros(2, 3, 31, 31))
    same(before, state(tiny_backbone))


def test_only_a_tapped_block_runs_unfused(tiny_backbone):
    """timm's attention calls attn_drop only unfused, so a hook there counts the unfused passes."""
    calls = []
    for block in tiny_backbone.model.blocks:
        block.attn.attn_drop.register_forward_pre_hook(lambda *_: calls.append(1))
    tiny_backbone.features(IMAGES)
    tiny_backbone.guide(IMAGES)  # computes the one map itself
    assert not calls
    tiny_backbone.features(IMAGES, with_attention=True)
    assert len(calls) == 1


@pytest.mark.parametrize("with_attention", [False, True])
def test_bf16_on_a_cpu_runs_unfused_with_equal_results(tiny_backbone, with_attention):
    calls = []
    for block in tiny_backbone.model.blocks:
        block.attn.attn_drop.register_forward_pre_hook(lambda *_: calls.append(1))
    precise = tiny_backbone.features(IMAGES, with_attention).logits
    calls.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = tiny_backbone.features(IMAGES, with_attention).logits
    assert len(calls) == len(tiny_backbone.model.blocks)
    torch.testing.assert_close(rounded.float(), precise, atol=0.02, rtol=0.02)
    calls.clear()
    assert torch.equal(tiny_backbone.features(IMAGES, with_attention).logits, precise)
    assert len(calls) == with_attention  # in float32 fused attention is back


def test_gradients_reach_the_weights_under_autocast_after_a_guide(tiny_backbone):
    with torch.autocast("cpu", torch.bfloat16):
        tiny_backbone.guide(IMAGES)
        logits, tokens, *_ = tiny_backbone.features(IMAGES)
        mask = torch.zeros(2, 1, 64, dtype=torch.bool)
        mask[:, :, :9] = True
        loss = logits.float().sum() + tiny_backbone.region_logits(tokens, mask).float().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in tiny_backbone.parameters())


def test_float32_guide_ignores_the_training_autocast():
    torch.manual_seed(0)
    precise = Backbone(
        "vit_tiny_patch16_224",
        10,
        32,
        guide=GuideConfig(precision="float32"),
        model_args=TINY,
    )
    expected = precise.guide(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        inside = precise.guide(IMAGES)
    assert torch.equal(inside.logits, expected.logits)
    assert torch.equal(inside.attention, expected.attention)


def test_region_logits_read_the_mean_token(tiny_backbone):
    tokens = torch.randn(2, 64, 48)
    mask = torch.rand(2, 3, 64) < 0.3
    mean = torch.stack([one[m].mean(0) for one, ms in zip(tokens, mask, strict=True) for m in ms])
    expected = tiny_backbone.token_head(mean.unflatten(0, (2, 3)))
    torch.testing.assert_close(tiny_backbone.region_logits(tokens, mask), expected)


def test_shared_token_head_is_the_class_head():
    backbone = Backbone("vit_tiny_patch16_224", 10, (32, 32), token_head="shared", model_args=TINY)
    tokens, everything = torch.randn(2, 64, 48), torch.ones(2, 1, 64, dtype=torch.bool)
    torch.testing.assert_close(
        backbone.region_logits(tokens, everything), backbone.model.head(tokens.mean(1))[:, None]
    )
    assert not any(name.startswith("token_head") for name in backbone.state_dict())


def test_tokens_are_final_normed_image_tokens(tiny_backbone):
    _, tokens, attention, _ = tiny_backbone.features(IMAGES)
    expected = tiny_backbone.model.forward_features(IMAGES)[:, 1:]
    torch.testing.assert_close(tokens, expected)
    assert attention is None


def test_training_pass_can_return_its_attention(tiny_backbone):
    tiny_backbone.eval()
    attention = tiny_backbone.features(IMAGES, with_attention=True).attention
    torch.testing.assert_close(attention, tiny_backbone.guide(IMAGES).attention)


def test_non_square_images():
    backbone = Backbone("vit_tiny_patch16_224", 10, (32, 48), model_args=TINY)
    assert backbone.grid == (8, 12)
    assert backbone.guide(torch.randn(1, 3, 32, 48)).attention.shape == (1, 8, 12)


def test_no_weight_decay_names_parameters(tiny_backbone):
    names = {name for name, _ in tiny_backbone.named_parameters()}
    assert {"model.pos_embed", "model.cls_token"} <= tiny_backbone.no_weight_decay()
    assert {"model.pos_embed", "model.cls_token"} <= names


@pytest.mark.parametrize(
    ("name", "size", "args", "message"),
    [
        ("deit_tini_patch16_224", 224, {}, "model.backbone=deit_tini_patch16_224"),
        ("deit_tini_patch16_224", 224, {}, "deit_tiny_patch16_224"),
        ("resnet18", 64, {}, "model.backbone.*ResNet"),
        ("deit_tiny_patch16_224", 230, {}, "data.image_size=230 x 230.*224 x 224"),
        ("deit_tiny_patch16_224", 224, {"depht": 2}, "depht.*model.backbone_args"),
    ],
)
def test_invalid_models_are_rejected(name, size, args, message):
    with pytest.raises(InputError, match=message):
        Backbone(name, 10, (size, size), model_args=args)
