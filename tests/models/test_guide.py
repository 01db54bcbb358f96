"""The shortened guide pass, compared with the full one option by option."""

import numpy as np
import pytest
import torch
from helpers.backbone_state import IMAGES, same, state
from helpers.small_runs import TINY

from smmix_pl import AttentiveCutMix, Backbone, InputError, SMMix, SMMixModule
from smmix_pl.mixing import soft_labels
from smmix_pl.models.guide import find_short_pass
from smmix_pl.models.guide_config import GuideConfig

DEPTH_2 = TINY | {"depth": 2}
PVT = {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
SHORT = {
    "deit": ("deit_tiny_patch16_224", DEPTH_2, 32),
    "distilled": ("deit_tiny_distilled_patch16_224", TINY, 32),
    "layer scale, no position for the class": ("deit3_small_patch16_224", DEPTH_2, 32),
    "registers": ("vit_tiny_patch16_224", DEPTH_2 | {"reg_tokens": 3}, 32),
    "query and key norm": ("vit_tiny_patch16_224", DEPTH_2 | {"qk_norm": True}, 32),
    "attention and MLP norm": (
        "vit_tiny_patch16_224",
        DEPTH_2 | {"scale_attn_norm": True, "scale_mlp_norm": True},
        32,
    ),
    "no bias": ("vit_tiny_patch16_224", DEPTH_2 | {"qkv_bias": False, "proj_bias": False}, 32),
    "norm before the blocks": ("vit_tiny_patch16_224", DEPTH_2 | {"pre_norm": True}, 32),
    "dropout everywhere": (
        "vit_tiny_patch16_224",
        DEPTH_2
        | dict.fromkeys(
            ("drop_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "drop_path_rate"),
            0.5,
        ),
        32,
    ),
    "pvt": ("pvt_tiny", PVT, 64),
    "pvt without bias": ("pvt_tiny", PVT | {"qkv_bias": False}, 64),
    "pvt of one block a stage": ("pvt_tiny", PVT | {"depths": (1, 1, 1, 1)}, 64),
}
FULL = {
    "average of the tokens": ("vit_tiny_patch16_224", DEPTH_2 | {"global_pool": "avg"}, 32),
    "one block": ("vit_tiny_patch16_224", TINY | {"depth": 1}, 32),
    "rotary positions": ("eva02_tiny_patch14_224", DEPTH_2 | {"patch_size": 8}, 32),
    "pvt, average of the tokens": ("pvt_tiny", PVT | {"global_pool": "avg"}, 64),
}


def make(name, args, side, **arguments):
    """A backbone whose attention is far from uniform."""
    torch.manual_seed(0)
    backbone = Backbone(name, 10, (side, side), model_args=args, **arguments)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return backbone.train()


def pixels(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def full_pass(backbone, images):
    """Return logits and attention of the full model in eval mode."""
    modes = [(module, module.training) for module in backbone.modules()]
    with torch.no_grad():
        features = backbone.eval().features(images, with_attention=True)
    for module, mode in modes:
        module.training = mode
    return features.logits, features.attention


@pytest.mark.parametrize("attention", ["tokens", "class"])
@pytest.mark.parametrize("case", SHORT)
def test_short_pass_equals_the_full_pass(case, attention):
    name, args, side = SHORT[case]
    backbone = make(name, args, side, guide=GuideConfig(readout=attention))
    assert find_short_pass(backbone.model) is not None
    guide = backbone.guide(pixels(side))
    logits, expected = full_pass(backbone, pixels(side))
    torch.testing.assert_close(guide.logits, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(guide.attention, expected, rtol=1e-5, atol=1e-6)


def test_gated_attention_keeps_its_gate():
    backbone = make("vit_tiny_patch16_224", DEPTH_2, 32)
    attention = backbone.model.blocks[-1].attn
    if not hasattr(attention, "gate"):
        pytest.skip("this timm has no gated attention")
    attention.gate = torch.nn.Linear(48, 48)
    logits, _ = full_pass(backbone, IMAGES)
    torch.testing.assert_close(backbone.guide(IMAGES).logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["deit", "distilled", "pvt"])
def test_under_bfloat16_the_short_pass_is_as_accurate_as_the_full_pass(case):
    name, args, side = SHORT[case]
    backbone = make(name, args, side)
    precise, attention = full_pass(backbone, pixels(side))
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = full_pass(backbone, pixels(side))
        guide = backbone.guide(pixels(side))
    assert guide.attention.dtype == torch.float32
    torch.testing.assert_close(guide.attention, attention, rtol=0.1, atol=2e-3)
    error = (guide.logits - precise).abs().mean()
    assert error < 2 * (rounded - precise).abs().mean() + 1e-3


@pytest.mark.parametrize("case", FULL)
def test_unsupported_models_use_the_full_pass(case):
    name, args, side = FULL[case]
    backbone = make(name, args, side)
    assert find_short_pass(backbone.model) is None
    guide = backbone.guide(pixels(side))
    torch.testing.assert_close((guide.logits, guide.attention), full_pass(backbone, pixels(side)))


def test_a_replaced_layer_disables_the_short_pass():
    """Such as a low-rank adapter around the last block's projection."""
    backbone = make("deit_tiny_patch16_224", DEPTH_2, 32)
    attention = backbone.model.blocks[-1].attn
    attention.qkv = torch.nn.Sequential(attention.qkv, torch.nn.Tanh())
    assert find_short_pass(backbone.model) is None
    logits, _ = full_pass(backbone, IMAGES)
    torch.testing.assert_close(backbone.guide(IMAGES).logits, logits)


@pytest.mark.parametrize("case", ["deit", "pvt"])
def test_short_pass_changes_no_state(case):
    name, args, side = SHORT[case]
    backbone = make(name, args, side)
    backbone.model.norm.eval()  # a module whose mode differs from the rest keeps it
    before = state(backbone)
    backbone.guide(pixels(side))
    same(before, state(backbone))
    with pytest.raises(Exception, match="31"):
        backbone.guide(torch.zeros(2, 3, 31, 31))
    same(before, state(backbone))


def test_guide_with_gradient_checkpointing():
    backbone = make("deit_tiny_patch16_224", DEPTH_2, 32)
    expected = backbone.guide(IMAGES)
    backbone.model.set_grad_checkpointing()
    torch.testing.assert_close(backbone.guide(IMAGES).logits, expected.logits)


def test_a_guide_can_be_part_of_a_loss():
    """Its tensors are not inference tensors, so autograd can save them."""
    backbone = make("deit_tiny_patch16_224", DEPTH_2, 32)
    guide = backbone.guide(IMAGES)
    logits = backbone.features(IMAGES).logits
    (logits * guide.logits + guide.attention.sum()).sum().backward()
    assert backbone.model.head.weight.grad is not None


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_guide_size_resizes_images_there_and_attention_back(name):
    exact = make(name, DEPTH_2, 32)
    same_size, smaller = (
        make(name, DEPTH_2, 32, guide=GuideConfig(size=size)) for size in (32, 16)
    )
    torch.testing.assert_close(same_size.guide(IMAGES).logits, exact.guide(IMAGES).logits)
    guide = smaller.guide(IMAGES)
    assert guide.attention.shape == (2, 8, 8)
    small = torch.nn.functional.interpolate(IMAGES, (16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(guide.logits, smaller.eval()(small), rtol=1e-5, atol=1e-5)
        logits = smaller.features(IMAGES).logits  # training stays at the full size
    torch.testing.assert_close(logits, exact.eval().features(IMAGES).logits)


def test_guide_size_of_a_model_in_bfloat16():
    backbone = make("deit_tiny_patch16_224", DEPTH_2, 32, guide=GuideConfig(size=16)).bfloat16()
    guide = backbone.guide(IMAGES.bfloat16())
    exact = backbone.float().guide(IMAGES)
    torch.testing.assert_close(guide.attention, exact.attention, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "args", "sizes"), [("pvt_tiny", PVT, (128, 64)), ("pvt_v2_b0", PVT, (128, 64))]
)
def test_guide_size_of_families_that_accept_any_size(name, args, sizes):
    side, guide_size = sizes
    backbone = make(name, args, side, guide=GuideConfig(size=guide_size))
    assert backbone.guide(pixels(side)).attention.shape == (2, 4, 4)


def test_guide_block_reads_an_earlier_block_and_runs_no_later_one():
    args = TINY | {"depth": 3}
    backbone, shallow = make("deit_tiny_patch16_224", args, 32, guide=GuideConfig(block=1)), None
    shallow = make("deit_tiny_patch16_224", TINY | {"depth": 2}, 32)
    weights = backbone.state_dict()
    shallow.load_state_dict({name: weights[name] for name in shallow.state_dict()})
    ran = []
    backbone.model.blocks[1].register_forward_pre_hook(lambda *_: ran.append(1))
    backbone.model.blocks[2].register_forward_pre_hook(lambda *_: ran.append(2))
    guide = backbone.guide(IMAGES)
    assert guide.logits is None
    assert not ran
    torch.testing.assert_close(guide.attention, shallow.guide(IMAGES).attention)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("deit_tiny_patch16_224", {"size": 30}, "30 x 30"),
        ("cait_xxs24_224", {"size": 16}, "16 x 16"),
        ("cait_xxs24_224", {"block": 1}, "guide.block=1"),
        ("deit_tiny_patch16_224", {"block": 2}, "guide.block=2"),
    ],
)
def test_invalid_guide_settings_are_rejected(name, args, message):
    with pytest.raises(InputError, match=message):
        make(name, DEPTH_2, 32, guide=GuideConfig(**args))


def test_guide_block_is_refused_to_a_mixer_that_reads_logits():
    def module(mixer):
        return SMMixModule(
            *(10, (32, 32), 2, mixer),
            backbone="deit_tiny_patch16_224",
            backbone_args=DEPTH_2,
            guide=GuideConfig(block=1),
        )

    with pytest.raises(InputError, match=r"guide\.block=1"):
        module(SMMix())
    module(SMMix(consistency=False))
    module(AttentiveCutMix())


def test_fraction_of_batches_with_a_guide_pass():
    """Other batches run no guide pass. Ranks agree, because their generators are equal."""
    backbone = make("deit_tiny_patch16_224", DEPTH_2, 32)
    labels = soft_labels(torch.arange(2), 10)
    mixer = SMMix(switch_prob=1, guide_prob=0.25)

    def carried():
        batches = [
            mixer(IMAGES, labels, backbone, np.random.default_rng(seed)) for seed in range(60)
        ]
        assert all(mixed.regions is not None for mixed in batches)
        return [mixed.teacher_logits is not None for mixed in batches]

    guided = carried()
    assert guided == carried()
    assert 5 < sum(guided) < 25


def test_guide_in_train_mode_drops_what_training_drops():
    """Each pass is another one, and equals the training pass that draws the same."""
    args = DEPTH_2 | {"drop_path_rate": 0.5, "proj_drop_rate": 0.3}
    backbone = make("deit_tiny_patch16_224", args, 32, guide=GuideConfig(mode="train")).train()

    def seeded(seed, run):
        torch.manual_seed(seed)
        return run()

    first, again, other = (seeded(seed, lambda: backbone.guide(IMAGES)) for seed in (1, 1, 2))
    assert torch.equal(first.logits, again.logits)
    assert not torch.equal(first.logits, other.logits)
    assert not torch.equal(first.attention, other.attention)
    features = seeded(1, lambda: backbone.features(IMAGES, with_attention=True))
    torch.testing.assert_close(first.logits, features.logits.detach())
    torch.testing.assert_close(first.attention, features.attention)
    assert not first.logits.requires_grad
    assert all(module.training for module in backbone.modules())
