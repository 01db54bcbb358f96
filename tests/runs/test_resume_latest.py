"""`--ckpt_path last` by the command line: which run it goes on with, and what that run keeps."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.cli.main import main


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes the digits recipe with another place for its runs, cut to a few steps."""
    monkeypatch.chdir(tmp_path)

    def written(save_dir):
        config = yaml.safe_load((configs_folder() / "digits.yaml").read_text())
        logger, _ = config["trainer"]["logger"]
        logger["init_args"]["save_dir"] = str(save_dir)
        best, last = config["trainer"]["callbacks"][:2]
        config["trainer"] |= {"logger": [logger], "callbacks": [best, last]}
        config["trainer"] |= {"limit_train_batches": 4, "check_val_every_n_epoch": 1}
        config["trainer"] |= {"enable_progress_bar": False, "log_every_n_steps": 1}
        config["test_after_fit"] = False
        Path("recipe.yaml").write_text(yaml.safe_dump(config))
        return ["--config", "recipe.yaml"]

    return written


def fit(words, epochs, *more):
    main(["fit", *words, f"--trainer.max_epochs={epochs}", *more])


def steps(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_between_is_passed_over(recipe, capsys, caplog):
    words = recipe("runs")
    fit(words, 1)
    runs = Path("runs/digits")
    for command in ("validate", "test", "predict"):
        main([command, *words, "--ckpt_path", str(runs / "version_0/checkpoints/best.ckpt")])
    assert {run.name for run in runs.iterdir()} == {f"version_{n}" for n in range(4)}
    with (runs / "version_0/metrics.csv").open("a") as file:
        file.write("1,")  # torn by a kill
    fit(words, 2, "--ckpt_path", "last")
    assert "the run goes on from runs/digits/version_0/checkpoints/last.ckpt" in caplog.text
    assert len(list(runs.iterdir())) == 4
    assert steps(runs / "version_0") == list(range(8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("moved", ["spelled in full", "moved"])
def test_the_best_checkpoint_is_known_in_a_folder_of_another_name(recipe, tmp_path, moved):
    fit(recipe("runs"), 1)
    checkpoints = tmp_path / "runs/digits/version_0/checkpoints"
    for file in checkpoints.iterdir():  # the best that can be
        content = torch.load(file, weights_only=True)
        for state in content["callbacks"].values():
            if state.get("monitor") == "val/loss":
                state["best_model_score"] = torch.tensor(0.0)
                state["best_k_models"] = {
                    path: torch.tensor(0.0) for path in state["best_k_models"]
                }
                state["kth_value"] = torch.tensor(0.0)
        torch.save(content, file)
    place = tmp_path / "runs"
    if moved == "moved":
        place = place.rename(tmp_path / "elsewhere")
    best = place / "digits/version_0/checkpoints/best.ckpt"
    before = best.read_bytes()
    fit(recipe(place), 3, "--ckpt_path", "last")
    assert best.read_bytes() == before
    last = torch.load(best.with_name("last.ckpt"), weights_only=True)
    assert last["global_step"] == 12
    [state] = [s for s in last["callbacks"].values() if s.get("monitor") == "val/loss"]
    assert state["best_model_path"] == str(best)


@pytest.mark.filterwarnings("ignore")
def test_a_test_says_how_its_weights_came_about(recipe):
    words = recipe("runs")
    fit(words, 1, "--model.mixer=CutMix", "--seed_everything=3")
    found = Path("runs/digits/version_0/checkpoints/last.ckpt")
    main(
        [
            "test",
            *words,
            "--config",
            "with/eval.yaml",
            "--ckpt_path",
            str(found),
            "--trainer.limit_test_batches=1",
        ]
    )
    results = yaml.safe_load(Path("runs/digits/version_1/results.json").read_text())
    assert results["run"]["mixer"] == "CutMix"
    assert results["run"]["seed"] == 3


@pytest.mark.filterwarnings("ignore")
def test_the_rest_of_an_epoch_that_was_cut_off_is_trained(recipe):
    words = recipe("runs")
    fit(words, 2, "--trainer.max_steps=3")
    fit(words, 2, "--ckpt_path", "last")
    assert steps(Path("runs/digits/version_0")) == list(range(8))


@pytest.mark.filterwarnings("ignore")
def test_settings_of_the_optimiser_are_those_of_the_config(recipe):
    words = recipe("runs")
    fit(words, 1)
    fit(words, 2, "--ckpt_path", "last", "--model.optim.lr=0.5", "--model.optim.warmup_epochs=0")
    with Path("runs/digits/version_0/metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    assert len(rates) == 8
    assert max(rates[:4]) < 0.01
    assert 0.01 < rates[5] <= 0.5
