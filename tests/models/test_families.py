"""Backbone families beyond plain ViT, one small model of each."""

from copy import deepcopy

import numpy as np
import pytest
import timm
import torch
from helpers.sampling import every

from smmix_pl import Backbone, InputError, SMMix, SMMixModule
from smmix_pl.mixing import soft_labels
from smmix_pl.models.guide_config import GuideConfig

PLAIN = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
STAGES = {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
# timm name: (arguments, image side); every grid is 4 x 4
FAMILIES = {
    "deit_tiny_distilled_patch16_224": (PLAIN, 32),
    "cait_xxs24_224": (PLAIN, 32),
    "beit_base_patch16_224": (PLAIN, 32),
    "eva02_tiny_patch14_224": (PLAIN, 32),
    "vit_small_patch16_dinov3": (PLAIN, 32),  # four register tokens and a class token
    "xcit_nano_12_p16_224": ({"embed_dim": 24, "depth": 2, "num_heads": 2}, 64),
    "pvt_tiny": (STAGES, 128),
    "pvt_v2_b0": (STAGES, 128),
    "twins_svt_small": (STAGES, 128),
    "swin_tiny_patch4_window7_224": (
        {"embed_dim": 8, "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2), "window_size": 4},
        128,
    ),
}
WITHOUT_PREFIX = {"cait", "pvt_v2", "twins", "swin"}  # attention to image tokens only


def images(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def perturb(module):
    """Move weights away from their initialization, where attention is nearly uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


def backbone(name, **arguments):
    torch.manual_seed(0)
    args, side = FAMILIES[name]
    return perturb(Backbone(name, 5, (side, side), model_args=args, **arguments)).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_a_distribution_over_the_grid(name):
    attention = backbone(name).guide(images(FAMILIES[name][1])).attention
    assert attention.shape == (2, 4, 4)
    assert (attention >= 0).all()
    total = attention.sum((1, 2))
    if name.startswith(tuple(WITHOUT_PREFIX)):
        torch.testing.assert_close(total, torch.ones(2))
    else:
        assert ((total > 0) & (total < 1)).all()  # the rest goes to class, register, ... tokens
    fractions = attention.flatten(1) / total[:, None]
    assert (fractions.amax(1) - fractions.amin(1) > 0.005).all()
    assert not torch.equal(attention[0], attention[1])


def by_head(x, heads):
    """(B, L, D) to (B, heads, L, D / heads)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def scores(attention, q, k):
    """Scaled products of queries and keys, (B, heads, Q, M)."""
    q, k = by_head(q, attention.num_heads), by_head(k, attention.num_heads)
    return q @ k.mT / q.shape[-1] ** 0.5


def vit_rows(attention, x):
    q, k, _ = attention.qkv(x).chunk(3, dim=-1)
    return scores(attention, q, k).softmax(-1)


def pvt_v2_rows(attention, x):
    return scores(attention, attention.q(x), attention.kv(x).chunk(2, dim=-1)[0]).softmax(-1)


def talking_heads_rows(attention, x):
    q, k, _ = attention.qkv(x).chunk(3, dim=-1)
    mixed = torch.einsum("gh,bhqk->bgqk", attention.proj_l.weight, scores(attention, q, k))
    return (mixed + attention.proj_l.bias[:, None, None]).softmax(-1)


def class_rows(attention, x):
    return scores(attention, attention.q(x[:, :1]), attention.k(x)).softmax(-1)


def swin_rows(attention, x):
    q, k, _ = attention.qkv(x).chunk(3, dim=-1)
    length = x.shape[1]
    table = attention.relative_position_bias_table  # one column a head
    bias = table[attention.relative_position_index.flatten()].unflatten(0, (length, length))
    return (scores(attention, q, k) + bias.permute(2, 0, 1)).softmax(-1)


@pytest.mark.parametrize(
    ("name", "queries", "module", "rows", "prefix"),
    [
        ("deit_tiny_distilled_patch16_224", "tokens", "blocks.1.attn", vit_rows, 2),
        ("pvt_v2_b0", "tokens", "stages.3.blocks.1.attn", pvt_v2_rows, 0),
        ("cait_xxs24_224", "tokens", "blocks.1.attn", talking_heads_rows, 0),
        ("cait_xxs24_224", "class", "blocks_token_only.1.attn", class_rows, 1),
        ("swin_tiny_patch4_window7_224", "tokens", "layers.3.blocks.1.attn", swin_rows, 0),
    ],
)
def test_attention_equals_an_independent_computation(name, queries, module, rows, prefix):
    model = backbone(name, guide=GuideConfig(readout=queries))
    attention = model.model.get_submodule(module)
    inputs = []
    handle = attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        model(images(FAMILIES[name][1]))
        handle.remove()
        guide = model.guide(images(FAMILIES[name][1]))
        expected = rows(attention, inputs[0]).mean(1)[..., prefix:]
    expected = expected[:, 0] if queries == "class" else expected[:, prefix:].mean(1)
    torch.testing.assert_close(guide.attention.flatten(1), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_smmix_step_reaches_every_weight(name):
    torch.manual_seed(0)
    args, side = FAMILIES[name]
    module = SMMixModule(
        num_classes=5,
        image_size=(side, side),
        batch_size=2,
        mixer=SMMix(switch_prob=1),
        backbone=name,
        backbone_args=args,
    ).train()
    labels = soft_labels(torch.tensor([0, 1]), 5, 0.1)
    mixed = module.mixer(images(side), labels, module.backbone, np.random.default_rng(0))
    losses = module.criterion.terms(mixed)
    assert set(losses) == {
        *("classification", "fine_grained_target", "fine_grained_source", "consistency")
    }
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for parameter_name, parameter in module.backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    assert module.backbone.token_head.weight.grad.any()


def same(ours, theirs):
    torch.testing.assert_close(tuple(ours), tuple(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_gives_the_same_numbers(name):
    model = backbone(name)
    pixels = images(FAMILIES[name][1])
    expected = model.features(pixels, with_attention=True)
    model.to(memory_format=torch.channels_last)
    pixels = pixels.to(memory_format=torch.channels_last)
    same(model.features(pixels, with_attention=True), expected)
    guide = model.guide(pixels)
    same((guide.logits, guide.attention), (expected.logits, expected.attention))


@pytest.mark.parametrize(
    "name", every(3, ["caformer_s18", "maxvit_tiny_tf_224", "vit_base_patch16_gap_224"])
)
def test_tokens_are_normalized_if_the_model_normalizes_its_average(name):
    """Models with the final norm in or before the head, whose features have variance 1."""
    model = Backbone(name, 5, (64, 64), model_args={}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 2
        features = model.features(images(64))
    deviation = features.tokens.std(dim=2, correction=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(features.logits, model(images(64)))


def test_volo_has_a_class_token_without_num_prefix_tokens():
    model = Backbone("volo_d1_224", 5, (64, 96), model_args={}).eval()
    attention = model.guide(torch.randn(2, 3, 64, 96)).attention
    assert attention.shape == (2, 4, 6)
    assert model.features(torch.randn(2, 3, 64, 96)).tokens.shape[1] == 24


def test_a_register_is_no_class_token():
    with pytest.raises(InputError, match="readout=class"):
        Backbone("vit_base_patch16_reg4_gap_256", 5, (64, 64), guide=GuideConfig(readout="class"))


def compiled_gives_the_same_numbers(name, backend):
    torch.compiler.reset()
    model = backbone(name)
    pixels = images(FAMILIES[name][1])
    expected = model.features(pixels, with_attention=True)
    features = torch.compile(deepcopy(model).features, backend=backend)
    same(features(pixels, with_attention=True), expected)
    model.model.compile(backend=backend)
    for _ in range(2):  # the second time from the cache, with a tap of its own
        guide = model.guide(pixels)
        same((guide.logits, guide.attention), (expected.logits, expected.attention))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_compiled_gives_the_same_numbers(name):
    compiled_gives_the_same_numbers(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_by_inductor_gives_the_same_numbers(name):
    compiled_gives_the_same_numbers(name, "inductor")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "pit_ti_224",
            "model.backbone=pit_ti_224.* 0 image tokens.*7 x 7",
        ),
        ("coat_tiny", r"model.backbone.*FactorAttnConvRelPosEnc"),
        ("nest_tiny", "nest_tiny.* 196 image tokens"),
        ("hiera_tiny_224", "model.backbone.*Hiera.*attn_drop"),
        ("levit_128s", "model.backbone.*LevitDistilled.*attn_drop"),
        ("mobilevit_xxs", "mobilevit_xxs.* 49 image tokens"),
        ("resnet18", "model.backbone.*ResNet.*deit_tiny_patch16_224"),
    ],
)
def test_unsupported_families_are_rejected_by_name(name, reason):
    with pytest.raises(InputError, match=reason):
        Backbone(name, 5, (224, 224))


@pytest.mark.parametrize(
    "name", ["vit_dwee_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256"]
)
def test_differential_attention_is_rejected(name):
    """Its map is a difference of two softmax maps, with negative values."""
    if not timm.is_model(name):
        pytest.skip("this timm has no such model")
    with pytest.raises(InputError, match=r"model.backbone.*differential attention"):
        Backbone(name, 5, (64, 64))


def test_channel_attention_is_rejected_where_channels_and_tokens_are_equally_many():
    """EdgeNeXt attends over 48 channels per head, and 192 x 256 pixels give 6 x 8 = 48 tokens."""
    with pytest.raises(InputError, match=r"model.backbone.*EdgeNeXt"):
        Backbone("edgenext_x_small", 5, (192, 256))
