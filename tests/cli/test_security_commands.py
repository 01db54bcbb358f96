"""Attacks through checkpoints, configs, and command lines: no code they contain runs.

Every attack tries to create a file, the marker. SECURITY.md lists what is defended.
"""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.attacks import (
    Trap,
    legacy_checkpoint,
    pickled,
    scripted,
    zip_checkpoint,
)
from helpers.data_trees import put
from helpers.programs import refusal
from helpers.small_recipe import RECIPE

from smmix_pl import InputError
from smmix_pl.cli.main import main
from smmix_pl.models.weights import open_checkpoint


def test_trap_runs_without_a_defense(tmp_path):
    """Otherwise no test below could fail."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.ckpt", "a.pth", "a.safetensors"])
@pytest.mark.parametrize("kind", [zip_checkpoint, legacy_checkpoint, pickled, scripted])
def test_checkpoint_runs_no_code(marker, kind, name):
    file = put(Path(name), kind(marker))
    with pytest.raises(InputError, match=name):
        open_checkpoint(file)


def test_compressed_checkpoint_is_rejected(marker):
    """Torch never compresses checkpoints, so a compressed one may be a decompression bomb."""
    weights, bomb = io.BytesIO(), Path("bomb.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(2)}}, weights)
    with zipfile.ZipFile(weights) as read, zipfile.ZipFile(bomb, "w") as written:
        for member in read.namelist():
            written.writestr(member, read.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="is compressed"):
        open_checkpoint(bomb)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_checkpoint_is_reported(marker, seed):
    content, rng = io.BytesIO(), np.random.default_rng(seed)
    torch.save({"a": torch.zeros(2), "b": [1, "x"]}, content, _use_new_zipfile_serialization=False)
    for _ in range(40):
        damaged = bytearray(content.getvalue())
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        try:
            open_checkpoint(put(Path("damaged.pth"), bytes(damaged)))
        except InputError as error:
            assert "damaged.pth" in str(error)
            assert "weights_only" not in str(error)  # torch's advice would run code


@pytest.fixture
def recipe(marker):
    """A recipe that trains on the digits, and a checkpoint that contains a trap."""
    put(Path("recipe.yaml"), RECIPE)
    put(Path("trap.ckpt"), zip_checkpoint(marker))


COMMANDS = {
    "fit": ["fit", "--config", "recipe.yaml", "--ckpt_path", "trap.ckpt"],
    "test": ["test", "--config", "recipe.yaml", "--ckpt_path", "trap.ckpt"],
    "init_from": ["fit", "--config", "recipe.yaml", "--model.init_from", "trap.ckpt"],
    "timm": [
        *("fit", "--config", "recipe.yaml"),
        *("--model.backbone_args.checkpoint_path", "trap.ckpt"),
    ],
    "timm's own source": [
        *("fit", "--config", "recipe.yaml", "--model.pretrained", "true"),
        "--model.backbone_args.pretrained_cfg={file: trap.ckpt}",
    ],
    "timm's own source, over another": [
        *("fit", "--config", "recipe.yaml", "--model.pretrained", "true"),
        "--model.backbone_args.pretrained_cfg_overlay={file: trap.ckpt}",
    ],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", COMMANDS)
def test_no_command_runs_code_of_a_checkpoint(recipe, kind, capsys):
    error = refusal(main, COMMANDS[kind], capsys)
    assert "trap.ckpt" in error
    assert ("model.init_from" if kind.startswith("timm") else "posix.system") in error


@pytest.mark.filterwarnings("ignore")
def test_run_does_not_resume_from_a_trap_or_a_folder(recipe, capsys, caplog):
    put(Path("runs/small/version_0/checkpoints/last.ckpt"), Path("trap.ckpt").read_bytes())
    words = ["fit", "--config", "recipe.yaml", "--trainer.max_epochs=1"]
    words += ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    error = refusal(main, [*words, "--ckpt_path", "last"], capsys)
    assert "last.ckpt" in error
    assert "posix.system" in caplog.text
    put(Path("shards.ckpt/.metadata"), Path("trap.ckpt").read_bytes())
    assert "shards.ckpt" in refusal(main, [*words, "--ckpt_path", "shards.ckpt"], capsys)


def test_tools_run_no_code_of_a_file(recipe, capsys):
    assert "posix.system" in refusal(main, ["export", "trap.ckpt", "--output", "out.onnx"], capsys)
    settings = {"backbone": "vit_tiny_patch16_224", "num_classes": 10, "image_size": [16, 16]}
    settings |= {"mean": [0.5], "std": [0.5], "backbone_args": {"checkpoint_path": "trap.ckpt"}}
    torch.save({"hyper_parameters": settings, "state_dict": {"a": torch.zeros(1)}}, "ours.ckpt")
    error = refusal(main, ["export", "ours.ckpt", "--output", "out.onnx"], capsys)
    assert "trap.ckpt" in error
    put(Path("run/results.json"), Path("trap.ckpt").read_bytes())
    assert "results.json" in refusal(main, ["compare", "run"], capsys)


def test_names_in_results_are_not_paths(recipe, capsys):
    """A comparison writes figures named after them."""
    run = {"model": "vit", "mixer": "SMMix", "data": "Digits", "image_size": [16, 16], "seed": 0}
    columns = {"total": [1], "confidence": [0.5], "accuracy": [0.5], "images": 1, "protocol": {}}
    content = {"run": run | {"git_commit": None}, "metrics": {}, "curves": {}}
    for name in ("../../picture", str(Path("picture").absolute())):
        forged = json.dumps(content | {"reliability": {name: columns}})
        put(Path("run/results.json"), forged.encode())
        error = refusal(main, ["compare", "run", "--output", "deep/er"], capsys)
        assert "results.json" in error
    assert not list(Path().rglob("picture*"))


TAGS = [
    "!!python/object/apply:os.system ['touch marker']",
    "trainer: !!python/object/apply:subprocess.Popen [[touch, marker]]",
    "model: {mixer: !!python/object/new:os.system ['touch marker']}",
    "seed_everything: !!python/name:os.system",
    "data: !!python/module:evil",
]


@pytest.mark.parametrize("text", TAGS)
def test_tags_of_a_config_construct_no_objects(marker, text, capsys):
    put(Path("evil.py"), "open('marker', 'w')")
    put(Path("evil.yaml"), text)
    error = refusal(main, ["fit", "--config", "evil.yaml"], capsys)
    assert "evil.yaml" in error
    assert "constructor" in error


IMPORTING = "smmix_pl.callbacks.output.results_file"  # imports subprocess
POPEN = "init_args: {args: [touch, marker]}"
CONFIGS = {
    "function": ("model: {mixer: {class_path: os.system}}", "os.system"),
    "class": (f"model: {{mixer: {{class_path: subprocess.Popen, {POPEN}}}}}", "subprocess.Popen"),
    "through this package": (
        f"trainer: {{callbacks: [{{class_path: {IMPORTING}.subprocess.Popen, {POPEN}}}]}}",
        "subprocess.Popen",
    ),
    "callable": (
        "trainer: {callbacks: [{class_path: LambdaCallback,"
        " init_args: {on_fit_start: smmix_pl.cli.input_errors.os.system}}]}",
        "system",
    ),
    "module from here": ("data: {class_path: evil.Data}", "evil.Data"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_config_imports_from_known_packages_only(marker, kind, capsys, monkeypatch):
    monkeypatch.syspath_prepend(".")
    put(Path("evil.py"), "open('marker', 'w')")
    text, name = CONFIGS[kind]
    put(Path("evil.yaml"), text)
    error = refusal(main, ["fit", "--config", "digits.yaml", "--config", "evil.yaml"], capsys)
    assert name in error


@pytest.mark.parametrize(
    "words",
    [
        ["--model.mixer", "os.system"],
        ["--trainer.callbacks+=subprocess.Popen", "--trainer.callbacks.args=[touch, marker]"],
        ["--model.mixer", "!!python/object/apply:os.system ['touch marker']"],
        ["--model.backbone", "$(touch marker)"],
    ],
)
def test_option_values_are_data(marker, words, capsys):
    refusal(main, ["fit", "--config", "digits.yaml", *words], capsys)


def test_check_data_imports_from_known_packages_only(marker, monkeypatch, capsys):
    monkeypatch.syspath_prepend(".")
    put(Path("evil.py"), "open('marker', 'w')")
    with pytest.raises(SystemExit) as stop:
        main(["check-data", "--data", "evil.Data"])
    assert stop.value.code == 2
    assert "evil.Data" in capsys.readouterr().err
