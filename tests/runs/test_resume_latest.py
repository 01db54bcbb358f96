"""`--ckpt_path last` on the command line: which run it resumes, and what that run keeps."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.cli.main import main


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write the digits recipe with another folder for its runs and few steps."""
    monkeypatch.chdir(tmp_path)

    def written(save_dir):
        config = yaml.safe_load((configs_folder() / "digits.yaml").read_text())
        default = yaml.safe_load((configs_folder() / "_defaults.yaml").read_text())
        logger, _ = default["trainer"]["logger"]
        logger["init_args"] = {"save_dir": str(save_dir), "name": "digits"}
        best, last = default["trainer"]["callbacks"][:2]
        del config["trainer"]["callbacks+"]
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_evaluations_after_the_run_are_ignored(recipe, capsys, caplog):
    words = recipe("runs")
    fit(words, 1)
    runs = Path("runs/digits")
    for command in ("validate", "test", "predict"):
        main([command, *words, "--ckpt_path", str(runs / "version_0/checkpoints/best.ckpt")])
    assert {run.name for run in runs.iterdir()} == {f"version_{n}" for n in range(4)}
    with (runs / "version_0/metrics.csv").open("a") as file:
        file.write("1,")  # truncated by a kill
    fit(words, 2, "--ckpt_path", "last")
    assert "runs/digits/version_0/checkpoints/last.ckpt" in caplog.text
    assert len(list(runs.iterdir())) == 4
    assert steps(runs / "version_0") == list(range(8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("moved", [pytest.param("absolute path", marks=pytest.mark.slow), "moved"])
def test_the_best_checkpoint_is_found_in_a_renamed_folder(recipe, tmp_path, moved):
    fit(recipe("runs"), 1)
    checkpoints = tmp_path / "runs/digits/version_0/checkpoints"
    for file in checkpoints.iterdir():  # the best possible score
        content = torch.load(file, weights_only=True)
        for state in content["callbacks"].values():
            if state.get("monitor") == "val/top1":
                state["best_model_score"] = torch.tensor(1.0)
                state["best_k_models"] = {
                    path: torch.tensor(1.0) for path in state["best_k_models"]
                }
                state["kth_value"] = torch.tensor(1.0)
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
    [state] = [s for s in last["callbacks"].values() if s.get("monitor") == "val/top1"]
    assert state["best_model_path"] == str(best)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_results_name_mixer_and_seed_of_the_training(recipe):
    words = recipe("runs")
    fit(words, 1, "--model.mixer=CutMix", "--seed_everything=3")
    found = Path("runs/digits/version_0/checkpoints/last.ckpt")
    added = ["Calibration", "ResultsFile"]
    callbacks = [f"--trainer.callbacks+=smmix_pl.callbacks.{name}" for name in added]
    main(["test", *words, "--ckpt_path", str(found), "--trainer.limit_test_batches=1", *callbacks])
    results = yaml.safe_load(Path("runs/digits/version_1/results.json").read_text())
    assert results["run"]["mixer"] == "CutMix"
    assert results["run"]["seed"] == 3


@pytest.mark.filterwarnings("ignore")
def test_the_rest_of_an_interrupted_epoch_is_trained(recipe):
    words = recipe("runs")
    fit(words, 2, "--trainer.max_steps=3")
    fit(words, 2, "--ckpt_path", "last")
    assert steps(Path("runs/digits/version_0")) == list(range(8))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_optimizer_settings_come_from_the_config(recipe):
    words = recipe("runs")
    fit(words, 1)
    fit(words, 2, "--ckpt_path", "last", "--model.optim.lr=0.5", "--model.optim.warmup_epochs=0")
    with Path("runs/digits/version_0/metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    assert len(rates) == 8
    assert max(rates[:4]) < 0.01
    assert 0.01 < rates[5] <= 0.5
