"""Loading weights: all kinds of files, and files that are rejected."""

import argparse
import os
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from helpers.small_runs import TINY
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from smmix_pl import InputError, OptimConfig, SMMix, SMMixModule
from smmix_pl.callbacks import EMA

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL_PVT = {"embed_dims": (16, 32, 40, 64), "depths": (1, 1, 2, 2)}
PLAIN = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
SWIN = {"embed_dim": 8, "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
STAGES = {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}


def module(backbone, args, side=32, num_classes=10, **arguments):
    torch.manual_seed(1)
    return SMMixModule(
        num_classes=num_classes,
        image_size=(side, side),
        batch_size=2,
        mixer=SMMix(),
        backbone=backbone,
        backbone_args=args,
        **arguments,
    ).eval()


def loaded_message(caplog):
    """Return the one message that loading logged."""
    [message] = [record.message for record in caplog.records if "tensors into" in record.message]
    return message


@pytest.fixture
def messages(caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    return caplog


@pytest.mark.parametrize(
    ("recording", "backbone", "args"),
    [
        ("step_deit.npz", "deit_tiny_patch16_224", TINY),
        ("step_pvt.npz", "pvt_tiny", SMALL_PVT),
    ],
)
def test_checkpoint_of_the_authors(recording, backbone, args, tmp_path, messages):
    """In the layout of their training script, with the recorded weights."""
    with np.load(GOLDEN / recording) as arrays:
        recorded = {key: torch.from_numpy(arrays[key]) for key in arrays}
    weights = {k.removeprefix("param/"): v for k, v in recorded.items() if k.startswith("param/")}
    file = tmp_path / "best_checkpoint.pth"
    torch.save(
        {
            "model": weights,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
            "epoch": 299,
            "model_ema": {name: torch.zeros_like(value) for name, value in weights.items()},
            "args": argparse.Namespace(model="vit_deit_tiny_patch16_224", lr=5e-4),
        },
        file,
    )
    side = recorded["images"].shape[2]
    model = module(backbone, args, side, init_from=str(file))
    logits = model(recorded["images"])
    torch.testing.assert_close(logits, recorded["unmixed_logits"], rtol=1e-4, atol=1e-5)
    assert torch.equal(model.backbone.token_head.weight, weights["token_head.weight"])
    assert "token head: from the file; unused in the file: nothing" in loaded_message(messages)
    assert loaded_message(messages).endswith("not in the file: nothing")


RELEASES = {
    "deit_tiny_patch16_224": (PLAIN, 32, 64, ""),
    "deit_tiny_distilled_patch16_224": (PLAIN, 32, 64, ""),
    "cait_xxs24_224": (PLAIN, 32, 64, "module."),
    "pvt_tiny": (STAGES, 64, 128, ""),
    "swin_tiny_patch4_window7_224": (SWIN, 224, 256, ""),
    "eva02_tiny_patch14_224": (PLAIN, 32, 64, ""),
    "beit_base_patch16_224": (PLAIN, 32, 64, ""),
}


def release(folder, name):
    """Write a file as the backbone's authors publish it: a dict with `model`."""
    args, side, _, prefix = RELEASES[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, img_size=side, **args).eval()
    file = folder / f"{name}.pth"
    torch.save({"model": {prefix + k: v for k, v in model.state_dict().items()}}, file)
    return model, file


@pytest.mark.parametrize("name", RELEASES)
def test_release_of_a_backbone(name, tmp_path, messages):
    theirs, file = release(tmp_path, name)
    args, side, _, _ = RELEASES[name]
    ours = module(name, args, side, init_from=str(file))
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(ours(images), theirs(images))
    assert "token head: fresh" in loaded_message(messages)


@pytest.mark.parametrize("name", RELEASES)
def test_other_image_size_and_number_of_classes(name, tmp_path, messages):
    theirs, file = release(tmp_path, name)
    args, _, side, _ = RELEASES[name]
    if name.startswith("swin"):
        args = args | {"window_size": 8}  # its last stage has to be one window
    ours = module(name, args, side, num_classes=7, init_from=str(file))
    heads = {key for key in theirs.state_dict() if key.split(".")[0] in ("head", "head_dist")}
    for listed in loaded_message(messages).split(";")[2:]:
        assert set(listed.split(": ")[1].split(", ")) == heads
    weights = dict(ours.backbone.model.named_parameters())
    same = [k for k, v in theirs.named_parameters() if v.shape == weights[k].shape]
    assert all(torch.equal(theirs.get_parameter(k), weights[k]) for k in same)
    assert ours(torch.randn(2, 3, side, side)).isfinite().all()


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "cait_xxs24_224"])
def test_position_embeddings_are_interpolated(name, tmp_path):
    theirs, file = release(tmp_path, name)
    ours = module(name, PLAIN, 64, init_from=str(file)).backbone.model.pos_embed
    prefix = 1 if name.startswith("deit") else 0
    grid = theirs.pos_embed[:, prefix:].mT.unflatten(2, (4, 4))
    larger = F.interpolate(grid, (8, 8), mode="bicubic", antialias=True).flatten(2).mT
    torch.testing.assert_close(ours[:, prefix:], larger)
    assert torch.equal(ours[:, :prefix], theirs.pos_embed[:, :prefix])


def test_timms_pretrained_weights_through_timm(tmp_path, monkeypatch):
    """From a copy of the Hub's cache, as on a machine without network."""
    torch.manual_seed(0)
    theirs = timm.create_model("deit_tiny_patch16_224", img_size=32, **PLAIN).eval()
    cached = tmp_path / "models--timm--deit_tiny_patch16_224.fb_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0123456789")
    (cached / "snapshots/0123456789").mkdir(parents=True)
    save_file(theirs.state_dict(), cached / "snapshots/0123456789/model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    ours = module("deit_tiny_patch16_224", PLAIN, num_classes=1000, pretrained=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))
    with pytest.raises(InputError, match=r"init_from=x\.pth"):
        module("deit_tiny_patch16_224", PLAIN, pretrained=True, init_from="x.pth")


def test_safetensors_and_compiled_and_distributed_names(tmp_path):
    theirs, _ = release(tmp_path, "deit_tiny_patch16_224")
    named = {f"module._orig_mod.{k}": v for k, v in theirs.state_dict().items()}
    save_file(named, tmp_path / "w.safetensors")
    ours = module("deit_tiny_patch16_224", PLAIN, init_from=str(tmp_path / "w.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("ema", [False, True])
def test_own_lightning_checkpoint(ema, tmp_path, messages):
    recipe = OptimConfig(lr=0.01, lr_batch=None, warmup_epochs=0)
    trained = module("vit_tiny_patch16_224", PLAIN, optim=recipe)
    average = EMA(decay=0.5)
    data = DataLoader(TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8)), batch_size=4)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[average] if ema else [],
    )
    trainer.fit(trained, data)
    file = tmp_path / "last.ckpt"
    trainer.save_checkpoint(file)
    tuned = module("vit_tiny_patch16_224", PLAIN, init_from=str(file))
    assert "token head: from the file" in loaded_message(messages)
    saved = torch.load(file, weights_only=True)
    assert ("current_model_state" in saved) == ema  # then state_dict is the average
    for name, value in tuned.backbone.state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"backbone.{name}"])
    # A checkpoint of the fine-tuned model does not need the file again.
    assert "init_from" not in tuned.hparams


def test_token_head_from_the_class_head(tmp_path, messages):
    theirs, file = release(tmp_path, "deit_tiny_patch16_224")
    ours = module("deit_tiny_patch16_224", PLAIN, init_from=str(file), init_token_head="class_head")
    assert "token head: from the class head" in loaded_message(messages)
    assert torch.equal(ours.backbone.token_head.weight, theirs.head.weight)
    assert ours.backbone.token_head.weight is not ours.backbone.model.head.weight


def test_fresh_token_head_for_new_classes(tmp_path, messages):
    _, file = release(tmp_path, "deit_tiny_patch16_224")
    args = {"init_from": str(file), "init_token_head": "class_head"}
    module("deit_tiny_patch16_224", PLAIN, num_classes=3, **args)
    assert "token head: fresh" in loaded_message(messages)


def truncated(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


class Trap:
    def __reduce__(self):
        return os.system, ("true",)


def test_files_that_do_not_fit_are_rejected(tmp_path):
    _, file = release(tmp_path, "deit_tiny_patch16_224")

    def rejected(message, path=file, name="deit_tiny_patch16_224", args=PLAIN, side=32):
        with pytest.raises(InputError, match=message) as error:
            module(name, args, side, init_from=str(path))
        assert "\n" not in str(error.value)

    rejected("blocks.0.attn.proj.bias .*24,.*48,", args=TINY | {"patch_size": 8})
    rejected("deit_tiny.*30 of 150 tensors", args=PLAIN | {"depth": 12})
    rejected("pvt_tiny", name="pvt_tiny", args=STAGES, side=64)
    rejected("swin_tiny", name="swin_tiny_patch4_window7_224", args=SWIN, side=64)
    rejected("gone.pth: file not found", tmp_path / "gone.pth")
    for content in ({}, {"model": {}}, [1, 2], 3.0, {"epoch": 3}):
        torch.save(content, tmp_path / "empty.pth")
        rejected("empty.pth: no weights", tmp_path / "empty.pth")
    torch.save({"model": {}, "trap": Trap()}, tmp_path / "trap.pth")
    rejected("trap.pth.*GLOBAL", tmp_path / "trap.pth")
    truncated(file)
    rejected(file.name)
    for name in ("w.safetensors", "w.pth", "w.ckpt"):
        (tmp_path / name).write_bytes(b"<html>404</html>")
        rejected(name, tmp_path / name)
    save_file({"a": torch.zeros(9)}, tmp_path / "half.safetensors")
    truncated(tmp_path / "half.safetensors")
    rejected("half.safetensors", tmp_path / "half.safetensors")
