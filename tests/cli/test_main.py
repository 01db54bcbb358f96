"""The installed program in processes of its own: what a user types and what comes back."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.programs import TINY_FLAGS, refusal, run_cli

import smmix_pl
from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.cli.main import main
from smmix_pl.errors import InputError

RECIPES = sorted(path.name for path in configs_folder().glob("*.yaml"))


def last_line(result) -> str:
    return result.stderr.strip().splitlines()[-1]


def only(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """One short run of the digits recipe, from a folder that is not the project's."""
    folder = tmp_path_factory.mktemp("digits")
    result = run_cli(
        *("fit", "--config", "digits.yaml", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=3", "--trainer.check_val_every_n_epoch=1"),
        "--trainer.log_every_n_steps=1",
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    return folder, result


def test_digits_recipe_ends_with_a_table_and_files(digits_run):
    folder, result = digits_run
    for told in ("top-1", "top-5", "ECE", "occlusion", "metrics.csv", "best.ckpt"):
        assert told in result.stdout
    run = folder / "runs" / "digits" / "version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (run / "metrics.csv").open() as file:
        keys = set(csv.DictReader(file).fieldnames)
    assert {"train/loss", "val/top1", "val/ece", "test/top1", "test/ece"} <= keys


def test_run_folder_holds_the_config_that_was_used(digits_run):
    folder, _ = digits_run
    used = yaml.safe_load((folder / "runs/digits/version_0/config.yaml").read_text())
    assert used["trainer"]["max_epochs"] == 1
    assert used["data"]["class_path"].endswith("Digits")
    again = run_cli("fit", "--config", "runs/digits/version_0/config.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "runs/digits/version_1/checkpoints/best.ckpt").is_file()


def test_checkpoint_holds_no_code(digits_run):
    folder, _ = digits_run
    checkpoint = torch.load(
        folder / "runs/digits/version_0/checkpoints/best.ckpt", weights_only=True
    )
    assert checkpoint["hyper_parameters"]["num_classes"] == 10


def test_checkpoint_of_another_model_is_refused(digits_run):
    folder, _ = digits_run
    result = run_cli(
        *("test", "--config", "digits.yaml"),
        "--model.backbone_args={patch_size: 2, embed_dim: 32, depth: 2, num_heads: 2}",
        *("--ckpt_path", "runs/digits/version_0/checkpoints/best.ckpt"),
        cwd=folder,
    )
    assert result.returncode == 2
    assert "the checkpoint holds another model" in last_line(result)
    assert "Traceback" not in result.stderr


def test_predict_writes_a_csv(digits_run, imagenet_folder):
    folder, _ = digits_run
    result = run_cli(
        *("predict", "--config", "digits.yaml", "--data.predict_dir", imagenet_folder / "val"),
        *("--ckpt_path", "runs/digits/version_0/checkpoints/best.ckpt"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    [written] = (folder / "runs/digits").glob("version_*/predictions.csv")
    with written.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {Path(row["file"]).suffix for row in rows} == {".JPEG"}
    assert all(row["class"] in "0123456789" for row in rows)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)


def imagenet_flags(root: Path) -> list[str]:
    return [
        *TINY_FLAGS,
        f"--data.root={root}",
        "--data.batch_size=4",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
    ]


def test_the_promised_command_line(tmp_path, imagenet_folder):
    """`lightning fit --config deit_t.yaml` on an ImageNet-layout folder, a few steps long."""
    result = run_cli(
        *("fit", "--config", "deit_t.yaml", *imagenet_flags(imagenet_folder)), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "learning rate 3.906e-06 at a global batch of 4" in result.stderr
    checkpoint = torch.load(
        only(tmp_path, "runs/deit_t/version_0/checkpoints/last.ckpt"), weights_only=True
    )
    assert checkpoint["global_step"] == 4
    assert checkpoint["state_dict"]["backbone.model.head.weight"].shape[0] == 3


def test_smmix_is_the_same_program(tmp_path):
    lightning, smmix = (
        run_cli("fit", "--help", cwd=tmp_path, program=name) for name in ("lightning", "smmix")
    )
    assert lightning.returncode == smmix.returncode == 0
    assert lightning.stdout.split("options:")[1] == smmix.stdout.split("options:")[1]
    for told in ("--model.backbone BACKBONE", "Any timm model whose last", "--model.optim.lr LR"):
        assert told in smmix.stdout


def printed_config(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_prints_a_complete_config(recipe, tmp_path, imagenet_folder, capsys):
    flags = [] if recipe == "digits.yaml" else [f"--data.root={imagenet_folder}"]
    printed = printed_config(["fit", "--config", recipe, *flags], capsys)
    (tmp_path / "again.yaml").write_text(printed)
    assert printed_config(["fit", "--config", str(tmp_path / "again.yaml")], capsys) == printed


def test_overlay_appends_callbacks():
    """A second config replaces lists, so overlays may only append."""
    for overlay in configs_folder().glob("*/*.yaml"):
        trainer = (yaml.safe_load(overlay.read_text()) or {}).get("trainer", {})
        assert not {"callbacks", "logger"} & trainer.keys(), overlay


def test_wheel_install_finds_the_recipes(tmp_path):
    """Not only an editable install: the package folder alone, with the configs inside."""
    shutil.copytree(Path(smmix_pl.__file__).parent, tmp_path / "smmix_pl")
    shutil.copytree(configs_folder(), tmp_path / "smmix_pl" / "configs")
    code = "from smmix_pl.cli.main import find_config; printfind_config'deit_t.yaml'"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).parent == tmp_path / "smmix_pl" / "configs"


BAD = {
    "unknown config": (["--config", "deit_x.yaml"], "did you mean .*deit_t.yaml"),
    "missing data folder": (["--data.root=nowhere"], "nowhere is not a folder; point data.root"),
    "empty data folder": (["--data.root=."], "has no folder train/"),
    "indivisible size": (["--data.image_size=36"], "image size 36 x 36 .* nearest .*: 32 x 32"),
    "unknown model": (["--model.backbone=deit_tinny"], "timm knows no model named 'deit_tinny'"),
    "no attention": (
        ["--model.backbone=resnet18", "--model.backbone_args={}"],
        "ResNet has no attention map",
    ),
    "batch size 0": (["--data.batch_size=0"], "data.batch_size is 0"),
    "batch too large": (["--data.batch_size=512"], "lower data.batch_size"),
    "region ratio": (["--model.mixer.max_side_ratio=1.5"], "max_side_ratio 1.5"),
    "misspelled flag": (["--model.lable_smoothing=0.1"], "did you mean .*model.label_smoothing"),
    "misspelled data flag": (["--data.bach_size=2"], "did you mean .*batch_size"),
    "wrong type": (["--data.batch_size=many"], "batch_size.*many"),
    "unknown mixer": (["--model.mixer=CutMux"], "CutMux"),
    "no end": (["--trainer.max_epochs=-1"], "set trainer.max_epochs"),
    "missing checkpoint": (["--ckpt_path=gone.ckpt"], "gone.ckpt"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence(kind, tmp_path, imagenet_folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, told = BAD[kind]
    config = [] if kind == "unknown config" else ["--config", "deit_t.yaml"]
    sentence = refusal(main, ["fit", *config, *imagenet_flags(imagenet_folder), *words], capsys)
    assert re.search(told, sentence), sentence


def test_empty_class_folder_is_named(tmp_path, imagenet_folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (imagenet_folder / "train" / "dog").mkdir()
    (imagenet_folder / "val" / "dog").mkdir()
    words = ["fit", "--config", "deit_t.yaml", *imagenet_flags(imagenet_folder)]
    assert "dog" in refusal(main, words, capsys)


def test_validation_classes_must_be_those_of_train(tmp_path, imagenet_folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(imagenet_folder / "val" / "cat")
    words = ["fit", "--config", "deit_t.yaml", *imagenet_flags(imagenet_folder)]
    assert "2 class folders where 3 are expected; 'cat'" in refusal(main, words, capsys)


def test_misspelled_key_in_a_file_and_debugging(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("model:\n  bakcbone: deit_tiny_patch16_224\n")
    result = run_cli("fit", "--config", "mine.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "did you mean model.backbone" in last_line(result)
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("SMMIX_DEBUG", "1")
    with pytest.raises(InputError):
        main(["fit", "--config", str(tmp_path / "mine.yaml")])


def test_what_the_data_sets_cannot_be_set_again(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("model: {num_classes: 5}\n")
    told = refusal(main, ["fit", "--config", tmp_path / "mine.yaml"], capsys)
    assert "sets model.num_classes, which comes from the data" in told
