"""PVT v1: parameters and outputs of the release, and timm's model interface."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay

from smmix_pl import Backbone, InputError
from smmix_pl.models.pvt import checkpoint_filter_fn

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED_SIZES = {"img_size": 128, "embed_dims": (16, 32, 40, 64), "depths": (1, 1, 2, 2)}
TINY = {"embed_dims": (8, 16, 20, 24), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
STAGES = [(8, 4), (16, 8), (20, 16), (24, 32)]  # channels, stride


def tiny(img_size=64, num_classes=5, **kwargs):
    torch.manual_seed(0)
    arguments = TINY | {"img_size": img_size, "num_classes": num_classes} | kwargs
    return timm.create_model("pvt_tiny", **arguments).eval()


def images(height=64, width=64, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, height, width, generator=generator)


def fuse(model, fused):
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused


def map_shapes(height=64, width=64):
    return [(2, channels, height // stride, width // stride) for channels, stride in STAGES]


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "step_pvt.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture(scope="module")
def recorded_model(recorded):
    weights = {k.removeprefix("param/"): v for k, v in recorded.items() if k.startswith("param/")}
    model = timm.create_model("pvt_tiny", num_classes=10, **RECORDED_SIZES).eval()
    model.load_state_dict(checkpoint_filter_fn({"model": weights}, model))
    return model


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_small", "pvt_medium", "pvt_large"])
def test_parameters_equal_the_release(name):
    released = json.loads((GOLDEN / "authors_state_dict_shapes.json").read_text())[name]
    expected = [(k, tuple(v)) for k, v in released.items() if not k.startswith("token_head.")]
    with torch.device("meta"):
        model = timm.create_model(name, drop_path_rate=0.1)
    assert [(k, tuple(v.shape)) for k, v in model.state_dict().items()] == expected


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("pixels", "logits"), [("images", "unmixed_logits"), ("mixed", "class_logits")]
)
def test_logits_equal_the_release(recorded, recorded_model, fused, pixels, logits):
    fuse(recorded_model, fused)
    with torch.no_grad():
        output = recorded_model(recorded[pixels])
    torch.testing.assert_close(output, recorded[logits], rtol=1e-4, atol=1e-6)


def test_attention_equals_the_release(recorded, recorded_model):
    maps = []
    attention = recorded_model.block4[-1].attn
    fuse(recorded_model, False)
    handle = attention.attn_drop.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    with torch.no_grad():
        recorded_model(recorded["images"])
    handle.remove()
    assert maps[0].shape == (4, 8, 17, 17)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(4, 8, 17))
    to_tokens = maps[0][:, :, 1:, 1:].mean((1, 2))
    torch.testing.assert_close(to_tokens, recorded["attention"], rtol=1e-4, atol=1e-7)


def test_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = tiny(drop_path_rate=0.5, proj_drop_rate=0.1, attn_drop_rate=0.1).train()
        model.set_grad_checkpointing(checkpointing)
        runs = []
        model.block1[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(1)
        model(images()).square().sum().backward()
        assert len(runs) == 1 + checkpointing
        gradients.append([parameter.grad for parameter in model.parameters()])
    plain, recomputed = gradients
    assert len(plain) == len(list(model.parameters()))
    torch.testing.assert_close(recomputed, plain)


def test_initial_weights():
    model = tiny(embed_dims=(64, 64, 64, 64), num_classes=100)
    weights = dict(model.named_parameters())
    drawn = [value for name, value in weights.items() if "pos_embed" in name or "cls" in name]
    drawn += [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert all(0.014 < value.std() < 0.026 for value in drawn)
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, torch.nn.Linear))
    rates = [0.0, 0.125, 0.25, 0.375, 0.5]
    blocks = [b for i in range(4) for b in tiny(drop_path_rate=0.5).get_submodule(f"block{i + 1}")]
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks] == rates


def test_features_only():
    model = tiny(features_only=True)
    assert model.feature_info.channels() == [channels for channels, _ in STAGES]
    assert model.feature_info.reduction() == [stride for _, stride in STAGES]
    assert [tuple(out.shape) for out in model(images(96, 64))] == map_shapes(96, 64)

    two = tiny(features_only=True, out_indices=(1, 2))
    assert two.feature_info.channels() == [16, 20]
    outputs = two(images())
    assert [tuple(out.shape) for out in outputs] == map_shapes()[1:3]
    torch.testing.assert_close(outputs, model(images())[1:3])
    assert not [name for name in two.state_dict() if "4" in name or "cls_token" in name]


def test_forward_intermediates():
    model = tiny()
    tokens, maps = model.forward_intermediates(images())
    assert [tuple(out.shape) for out in maps] == map_shapes()
    torch.testing.assert_close(tokens, model.forward_features(images()))

    _, last = model.forward_intermediates(images(), indices=1, norm=True)
    torch.testing.assert_close(last[0].flatten(2).mT, tokens[:, 1:])

    early = model.forward_intermediates(images(), [0, 2], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early, [maps[0], maps[2]])
    with pytest.raises(InputError, match="output_fmt=NLC"):
        model.forward_intermediates(images(), output_fmt="NLC")


def test_pruned_model_returns_the_tokens_of_its_last_stage():
    model = tiny()
    _, maps = model.forward_intermediates(images())
    assert model.prune_intermediate_layers([-3]) == [1]
    assert (model.num_features, model.num_prefix_tokens) == (16, 0)
    torch.testing.assert_close(model(images()), maps[1].flatten(2).mT)
    model.reset_classifier(3, "avg")
    assert model(images()).shape == (2, 3)


def test_other_image_sizes():
    model = tiny(img_size=64)
    rectangular = tiny(img_size=(256, 192))
    assert rectangular.pos_embed1.shape == (1, 64 * 48, 8)
    assert rectangular.pos_embed4.shape == (1, 1 + 8 * 6, 24)
    assert rectangular.forward_features(images(256, 192)).shape == (2, 1 + 8 * 6, 24)
    # At twice the size, the second stage has as many tokens as the first stage had.
    for height, width in [(128, 128), (256, 192), (32, 128)]:
        interpolated = model(images(height, width))
        resized = tiny(img_size=64)
        resized.set_input_size((height, width))
        assert resized.img_size == (height, width)
        assert resized.pos_embed1.requires_grad
        torch.testing.assert_close(resized(images(height, width)), interpolated)


def test_checkpoints_of_another_size_load():
    trained = tiny(img_size=128)
    weights = trained.state_dict() | {"token_head.weight": torch.zeros(5, 24)}
    model = tiny(img_size=(64, 96), num_classes=5)
    model.load_state_dict(checkpoint_filter_fn({"model": weights}, model))
    torch.testing.assert_close(model(images(64, 96)), trained(images(64, 96)))

    same = checkpoint_filter_fn(model.state_dict(), model)
    assert all(torch.equal(same[name], value) for name, value in model.state_dict().items())


def test_heads():
    model = tiny(in_chans=1)
    pixels = images(channels=1)
    tokens = model.forward_features(pixels)
    assert tokens.shape == (2, 1 + 4, 24)
    assert model.get_classifier().weight.shape == (5, 24)
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens[:, 0])

    model.reset_classifier(7, "avg")
    assert model(pixels).shape == (2, 7)
    pooled = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(pooled, tokens[:, 1:].mean(1))

    model.reset_classifier(0)
    torch.testing.assert_close(model(pixels), pooled)
    assert tiny(global_pool="")(images()).shape == (2, 5, 5)
    with pytest.raises(InputError, match="global_pool=max"):
        model.reset_classifier(7, "max")


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_timm_groups_layers_by_depth(weight_decay):
    model = tiny()
    groups = param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5
    )
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    depth = [model.pos_embed1, model.block1[0].mlp.fc1.weight, model.pos_embed2]
    depth += [model.pos_embed3, model.cls_token, model.block4[1].mlp.fc1.weight, model.head.weight]
    scales = [scale[id(parameter)] for parameter in depth]
    assert scales == sorted(set(scales)) and scales[-1] == 1
    assert decay[id(model.pos_embed1)] == weight_decay
    assert decay[id(model.cls_token)] == 0

    stages = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    names = ["pos_embed1", "block1.0.norm1.bias", "patch_embed2.proj.bias", "block2.0.norm1.bias"]
    assert [stages[name] for name in names] == [0, 1, 2, 2]
    names = ["block3.0.norm1.bias", "cls_token", "block4.1.norm1.bias", "norm.bias", "head.bias"]
    assert [stages[name] for name in names] == [3, 4, 4, 4, 5]


def test_pvt_guides_smmix():
    backbone = Backbone("pvt_tiny", 5, (64, 96), model_args=TINY)
    guide = backbone.guide(images(64, 96))
    assert guide.attention.shape == (2, 2, 3)
    assert guide.logits.shape == (2, 5)
    with pytest.raises(InputError, match="64 x 96"):
        Backbone("pvt_tiny", 5, (65, 96))


def test_image_size_that_the_patches_do_not_divide():
    with pytest.raises(InputError, match=r"data.image_size=224 x 230.* 32 .*224 x 224"):
        timm.create_model("pvt_tiny", img_size=(224, 230))
    model = tiny()
    with pytest.raises(InputError, match="96 x 32"):
        model(images(90, 10))
    with pytest.raises(InputError, match="96 x 96"):
        model.set_input_size(100)
    assert model.img_size == (64, 64)
    with pytest.raises(ValueError, match="image_size=65 x 64"):
        model.forward_intermediates(images(65, 64))
