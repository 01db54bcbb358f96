"""`~` and environment variables in paths, on every way into the program."""

import csv
from pathlib import Path

import pytest
import yaml
from helpers.image_folders import write_image_folder
from helpers.programs import refusal, run_here
from helpers.sampling import every
from helpers.small_recipe import RECIPE
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl.cli.main import main
from smmix_pl.cli.path_settings import expand_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and a folder in it as a variable; the working directory is another one."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("STORE", str(home / "store"))
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(work)
    return home


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_in_the_home_folder_is_resumed_there(home):
    config = yaml.safe_load(RECIPE)
    [logger] = config["trainer"]["logger"]
    logger["init_args"]["save_dir"] = "~/runs"
    best, *_ = config["trainer"]["callbacks"]
    best["init_args"]["dirpath"] = "${STORE}/best"
    (home / "recipe.yaml").write_text(yaml.safe_dump(config))
    words = ["fit", "--config=~/recipe.yaml", "--trainer.limit_train_batches=2"]
    main([*words, "--trainer.max_epochs=1"])
    run = home / "runs/small/version_0"
    main([*words, "--trainer.max_epochs=2", "--ckpt_path=last"])
    with (run / "metrics.csv").open(newline="") as file:
        assert [r["step"] for r in csv.DictReader(file) if r["train/loss"]] == ["0", "1", "2", "3"]
    assert (home / "store/best/best.ckpt").is_file()
    last = "~/runs/small/version_0/checkpoints/last.ckpt"
    main(["export", last, "--output=$STORE/model.safetensors"])
    assert (home / "store/model.safetensors").is_file()
    main([*words, "--trainer.max_epochs=1", "--model.init_from=$STORE/model.safetensors"])
    main(["report", "name=~/runs/small/version_0", "--output=~/report.html"])
    assert "name" in (home / "report.html").read_text()
    assert not list(Path().iterdir())


def test_data_in_the_home_folder_is_checked(home):
    write_image_folder(home / "images/train", per_class=2)
    write_image_folder(home / "images/val", per_class=2)
    for root in ("~/images", "$HOME/images"):
        report = run_here("check-data", "--data=Folder", f"--data.root={root}", cwd=Path())
        assert "6 images" in report, report


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["fit", "--config=digits.yaml", "--trainer.default_root_dir"], "trainer.default_root_dir"),
        (["fit", "--config=digits.yaml", "--ckpt_path"], "--ckpt_path"),
        (["report", "run", "--output"], "--output"),
        (["fit", "--config"], "--config"),
    ],
)
@pytest.mark.parametrize(
    ("path", "unknown"),
    every(2, [("$UNSET/a", "UNSET"), ("${UNSET}/a", "UNSET"), ("~no_one/a", "no_one")]),
)
def test_an_unknown_variable_or_user_is_named(home, capsys, words, option, path, unknown):
    *others, last = words
    error = refusal(main, [*others, f"{last}={path}"], capsys)
    assert f"{option}={path}" in error
    assert unknown in error.replace(path, "")
    assert not list(Path().iterdir())


@given(st.text(st.characters(exclude_characters="~$\0", exclude_categories=["Cs"])))
def test_other_text_is_unchanged(text):
    assert expand_path(text, "--name") == text
