"""Export end to end: a run on the command line, its export, and timm without smmix_pl."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import yaml
from helpers.digits import quiet_trainer
from helpers.image_folders import write_image_folder
from helpers.programs import TINY_FLAGS
from helpers.sampling import every
from safetensors import safe_open

from smmix_pl import InputError, SMMix, SMMixModule
from smmix_pl.cli.main import main
from smmix_pl.data import Folder
from smmix_pl.runs.export_weights import export

PLAIN = "{patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}"
STAGES = "{embed_dims: [8, 16, 20, 32], num_heads: [1, 2, 2, 4], depths: [1, 1, 1, 2]}"
SWIN = "{embed_dim: 8, num_heads: [1, 2, 2, 4], depths: [1, 1, 1, 2], window_size: 2}"
DEIT = "deit_tiny_patch16_224"
MODELS = {
    DEIT: (PLAIN, 32),
    "cait_xxs24_224": (PLAIN, 32),
    "pvt_v2_b0": (STAGES, 64),
    "swin_tiny_patch4_window7_224": (SWIN, 64),
    "pvt_tiny": (STAGES, 64),
}
IMAGES = {side: torch.randn(3, 3, side, side) for side in (32, 64)}


def trained(folder, imagenet_folder, *flags):
    """Return the checkpoint of a short run of DeiT on the command line."""
    (folder / "own.yaml").write_text("trainer: {callbacks: null}\n")
    words = ["--config", "deit_t.yaml", "--config", str(folder / "own.yaml"), *TINY_FLAGS]
    words += [f"--model.backbone={DEIT}", f"--data.root={imagenet_folder}", "--data.batch_size=4"]
    words += ["--trainer.max_epochs=1", "--trainer.logger=false"]
    words += [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
    words += ["--model.optim.warmup_lr=0.01", "--trainer.callbacks+=ModelCheckpoint"]
    main(["fit", *words, *flags])
    [checkpoint] = folder.glob("checkpoints/*.ckpt")
    return checkpoint


def saved(name, folder, imagenet_folder):
    """Return a checkpoint with random weights, as a trainer saves it."""
    args, side = MODELS[name]
    data = Folder(root=str(imagenet_folder), image_size=side, batch_size=4, num_workers=0)
    size, args = (side, side), yaml.safe_load(args)
    module = SMMixModule(3, size, 4, SMMix(), backbone=name, backbone_args=args)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight) / 50)
    trainer = quiet_trainer(max_epochs=0)
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint of each model: of DeiT by the command line."""
    images = tmp_path_factory.mktemp("imagenet")
    for part in ("train", "val"):
        write_image_folder(images / part, per_class=4)
    others = {name: saved(name, tmp_path_factory.mktemp(name), images) for name in [*MODELS][1:]}
    return {DEIT: trained(tmp_path_factory.mktemp(DEIT), images)} | others


def logits_of(checkpoint, name):
    """Return the logits of the run's own module."""
    mixer = {} if name == DEIT else {"mixer": SMMix()}  # the command line stores the mixer
    module = SMMixModule.load_from_checkpoint(checkpoint, **mixer).eval()
    with torch.no_grad():
        return module(IMAGES[MODELS[name][1]])


ELSEWHERE = """
import json, sys
sys.modules["smmix_pl"] = None  # as if it were not installed
import timm, torch
todo = torch.load(sys.argv[1])
for load, images, logits in todo:
    model = eval(load).eval()
    with torch.no_grad():
        assert torch.equal(model(images), logits), load
    names = model.pretrained_cfg.get("label_names")
    assert names == (["ant", "bee", "cat"] if "local-dir" in load else None), names
    print(json.dumps([model.pretrained_cfg[k] for k in ("mean", "crop_pct", "num_classes")]))
"""


def test_timm_alone_gives_identical_logits(checkpoints, tmp_path):
    todo = []
    for name, checkpoint in checkpoints.items():
        if name == "pvt_tiny":  # the only model that needs this package
            continue
        images, logits = IMAGES[MODELS[name][1]], logits_of(checkpoint, name)
        for out in (tmp_path / f"{name}.safetensors", tmp_path / name):
            load = export(checkpoint, out, crop_pct=0.9)
            todo.append((load, images, logits))
    torch.save(todo, tmp_path / "todo.pt")
    result = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(tmp_path / "todo.pt")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    configs = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(configs) == 8
    assert all(cfg == [[0.485, 0.456, 0.406], 0.9, 3] for cfg in configs)


def test_pvt_is_registered_by_this_package(checkpoints, tmp_path):
    code = export(checkpoints["pvt_tiny"], tmp_path / "pvt.safetensors")
    register, load = code.splitlines()
    assert register.startswith("import smmix_pl.models")
    model = eval(load, {"timm": timm}).eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES[64]), logits_of(checkpoints["pvt_tiny"], "pvt_tiny"))


def test_the_file_contains_the_model_settings(checkpoints, tmp_path):
    out = tmp_path / "new" / "deit.safetensors"
    code = export(checkpoints[DEIT], out)
    assert code.startswith("timm.create_model('deit_tiny_patch16_224', checkpoint_path=")
    with safe_open(out, framework="pt") as file:
        settings = file.metadata()
        assert not [name for name in file.keys() if "token_head" in name]  # noqa: SIM118
    assert settings["architecture"] == "deit_tiny_patch16_224"
    assert json.loads(settings["model_args"])["img_size"] == [32, 32]
    cfg = json.loads(settings["pretrained_cfg"])
    assert (cfg["num_classes"], cfg["input_size"], cfg["crop_pct"]) == (3, [3, 32, 32], 0.875)
    assert cfg["label_names"] == ["ant", "bee", "cat"]
    assert not {"url", "hf_hub_id", "file"} & cfg.keys()


def test_the_preprocessing_of_the_run_is_exported(tmp_path, imagenet_folder):
    flags = ["--data.eval_transform.crop_ratio=1", "--data.eval_transform.interpolation=bilinear"]
    checkpoint = trained(tmp_path, imagenet_folder, *flags)
    with safe_open(_exported(checkpoint, tmp_path), framework="pt") as file:
        cfg = json.loads(file.metadata()["pretrained_cfg"])
    assert (cfg["crop_pct"], cfg["interpolation"]) == (1.0, "bilinear")


def _exported(checkpoint, folder):
    export(checkpoint, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_ema_weights_are_exported(tmp_path, imagenet_folder):
    flags = ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.5"]
    checkpoint = trained(tmp_path, imagenet_folder, *flags)
    content = torch.load(checkpoint, weights_only=True)
    name = "backbone.model.head.weight"
    average, current = content["state_dict"][name], content["current_model_state"][name]
    assert not torch.equal(average, current)
    model = eval(export(checkpoint, tmp_path / "ema.safetensors"), {"timm": timm})
    assert torch.equal(model.head.weight, average)


@pytest.mark.parametrize("name", every(len(MODELS), MODELS))
def test_onnx(name, checkpoints, tmp_path):
    out = tmp_path / "model.onnx"
    export(checkpoints[name], out)
    session = onnxruntime.InferenceSession(out)
    expected = logits_of(checkpoints[name], name).numpy()
    for count in (1, 3):
        images = IMAGES[MODELS[name][1]][:count].numpy()
        [logits] = session.run(["logits"], {"images": images})
        np.testing.assert_allclose(logits, expected[:count], rtol=1e-4, atol=1e-4)
    assert "crop_pct" in session.get_modelmeta().custom_metadata_map["pretrained_cfg"]


def test_invalid_input_is_named(checkpoints, tmp_path):
    checkpoint = checkpoints[DEIT]
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "theirs.pth")
    for source, out, crop_pct, named in [
        (tmp_path / "gone.ckpt", "x.onnx", None, "gone.ckpt"),
        (tmp_path / "theirs.pth", "x.onnx", None, "theirs.pth"),
        (checkpoint, "x.tflite", None, ".tflite"),
        (checkpoint, "x.onnx", 1.5, "--crop_pct=1.5"),
    ]:
        with pytest.raises(InputError, match=named):
            export(source, tmp_path / out, crop_pct)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    "prepared",
    [[1], {"crop_pct": "x", "input_size": [3, 9**9, 9**9]}, {"label_names": ["ant", 1, None]}],
)
def test_forged_preprocessing_is_ignored(checkpoints, tmp_path, prepared):
    content = torch.load(checkpoints[DEIT], weights_only=True)
    torch.save(content | {"prepared": prepared}, tmp_path / "forged.ckpt")
    export(tmp_path / "forged.ckpt", tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        cfg = json.loads(file.metadata()["pretrained_cfg"])
    assert (cfg["crop_pct"], cfg["input_size"]) == (0.875, [3, 32, 32])
    assert "label_names" not in cfg
