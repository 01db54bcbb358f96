"""Position embeddings of weights from another image size, square or not."""

import pytest
import timm
import torch
from helpers.sampling import every
from helpers.small_runs import TINY
from safetensors.torch import save_file
from torch.nn import functional as F

from smmix_pl import Backbone, InputError
from smmix_pl.models.weights import load_weights

STAGES = {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
PLAIN = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
MODELS = {
    "deit_tiny_patch16_224": TINY | {"depth": 1},
    "pvt_tiny": STAGES,
    "cait_xxs24_224": PLAIN,
    "eva02_tiny_patch14_224": PLAIN,
}


def make(name, size, args=None):
    torch.manual_seed(sum(size))
    return Backbone(name, 5, size, model_args=MODELS[name] if args is None else args).eval()


def checkpoint(folder, name, size):
    """Write the part of a run's checkpoint that loading reads."""
    backbone = make(name, size)
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    settings = {"backbone": name, "backbone_args": MODELS[name], "image_size": size}
    torch.save({"state_dict": state, "hyper_parameters": settings}, folder / "last.ckpt")
    return backbone, folder / "last.ckpt"


def embeddings(backbone):
    weights = dict(backbone.model.named_parameters())
    return {name: value for name, value in weights.items() if name.startswith("pos_embed")}


def interpolated(value, prefix, old, new, name):
    grid = value[:, prefix:].mT.unflatten(2, old)
    mode = {"mode": "bilinear"} if name == "pvt_tiny" else {"mode": "bicubic", "antialias": True}
    return torch.cat((value[:, :prefix], F.interpolate(grid, new, **mode).flatten(2).mT), dim=1)


def grid_of(size, tokens):
    """The token grid of an image size, and the number of prefix tokens."""
    for stride in (4, 8, 16, 32):
        count = size[0] // stride * (size[1] // stride)
        if 0 <= tokens - count <= 1:
            return (size[0] // stride, size[1] // stride), tokens - count
    raise AssertionError(tokens)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("source", "target"),
    every(
        3,
        [
            ((64, 256), (128, 128)),  # equally many tokens
            ((32, 64), (64, 128)),
            ((64, 128), (64, 128)),
            ((64, 128), (128, 64)),
            ((64, 64), (128, 64)),
        ],
    ),
)
def test_own_checkpoints_are_resampled_from_their_grid(name, source, target, tmp_path):
    trained, file = checkpoint(tmp_path, name, source)
    loaded = make(name, target)
    message = load_weights(loaded, file)
    assert (f"{source[0]} x {source[1]}" in message) == (source != target)
    before, after = embeddings(trained), embeddings(loaded)
    assert before
    for key, value in before.items():
        old, prefix = grid_of(source, value.shape[1])
        new, _ = grid_of(target, after[key].shape[1])
        expected = value if old == new else interpolated(value, prefix, old, new, name)
        torch.testing.assert_close(after[key], expected)


def test_exported_weights_state_their_image_size(tmp_path):
    trained = make("deit_tiny_patch16_224", (16, 64))
    file = tmp_path / "w.safetensors"
    metadata = {"pretrained_cfg": '{"input_size": [3, 16, 64]}'}
    save_file(trained.model.state_dict(), file, metadata)
    for target in ((16, 64), (32, 32)):
        loaded = make("deit_tiny_patch16_224", target)
        load_weights(loaded, file)
        value = trained.model.pos_embed
        expected = value if target == (16, 64) else interpolated(value, 1, (4, 16), (8, 8), "deit")
        torch.testing.assert_close(loaded.model.pos_embed, expected)


def test_a_grid_that_could_be_another_one_is_asked_for(tmp_path):
    """16 x 64 and 32 x 32 pixels both give 64 tokens; other files do not state their size."""
    name, file = "deit_tiny_patch16_224", tmp_path / "foreign.pth"
    trained = make(name, (16, 64))
    torch.save(trained.model.state_dict(), file)
    for target in ((16, 64), (64, 16), (16, 32)):
        with pytest.raises(InputError, match=r"foreign.pth.*model.init_image_size"):
            load_weights(make(name, target), file)
        loaded = make(name, target)
        load_weights(loaded, file, image_size=(16, 64))
    with pytest.raises(InputError, match=r"foreign.pth.*65 positions.*32 x 64"):
        load_weights(loaded, file, image_size=(32, 64))


@pytest.mark.parametrize("size", [(64, 1024), (128, 256)])
def test_weights_with_the_grid_of_the_pretrained_model_are_square(size, tmp_path):
    args = PLAIN | {"patch_size": 16}
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=5, img_size=224, **args)
    torch.save({"model": theirs.state_dict()}, tmp_path / "release.pth")
    loaded = make("deit_tiny_patch16_224", size, args)
    load_weights(loaded, tmp_path / "release.pth")
    grid = (size[0] // 16, size[1] // 16)
    expected = interpolated(theirs.pos_embed, 1, (14, 14), grid, "deit")
    torch.testing.assert_close(loaded.model.pos_embed, expected)


def test_relative_position_tables_of_non_square_grids(tmp_path):
    """Tables of 32 x 128 and 128 x 32 pixels have equal shapes but different meanings."""
    MODELS["beit_base_patch16_224"] = PLAIN
    trained, file = checkpoint(tmp_path, "beit_base_patch16_224", (32, 128))
    same = make("beit_base_patch16_224", (32, 128))
    load_weights(same, file)
    for name, value in trained.model.named_parameters():
        assert torch.equal(same.model.get_parameter(name), value), name
    with pytest.raises(InputError, match=r"last.ckpt.*32 x 128.*128 x 32"):
        load_weights(make("beit_base_patch16_224", (128, 32)), file)
