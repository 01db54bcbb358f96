"""The folder of a run belongs to that run alone."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import yaml
from helpers import processes
from helpers.digits import quiet_trainer
from helpers.programs import refusal
from helpers.small_recipe import FIT, RECIPE, write_recipe
from lightning.pytorch.loggers import CSVLogger

from smmix_pl.cli.main import main
from smmix_pl.runs.start_run import start_run


@pytest.mark.slow
def test_simultaneous_runs_get_different_folders(tmp_path):
    words = [*FIT, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    write_recipe(tmp_path)
    started = [processes.start([*words, f"--seed_everything={n}"], tmp_path) for n in range(3)]
    for process in started:
        process.join()
    output = (tmp_path / "log.err").read_text()
    assert [process.exitcode for process in started] == [0] * 3, output[-3000:]
    runs = sorted((tmp_path / "runs/small").iterdir())
    assert [run.name for run in runs] == [f"version_{number}" for number in range(3)]
    seeds = {yaml.safe_load((run / "config.yaml").read_text())["seed_everything"] for run in runs}
    assert seeds == set(range(3))
    for run in runs:
        with (run / "metrics.csv").open() as file:
            assert [row["step"] for row in csv.DictReader(file) if row["train/loss"]] == ["0", "1"]


def test_a_folder_is_claimed_once_however_many_runs_choose_it(tmp_path):
    """Processes start too far apart to collide every time; threads behind a barrier do."""
    for group in range(5):
        loggers = [CSVLogger(tmp_path, name=str(group)) for _ in range(8)]
        trainers = [quiet_trainer(logger=logger) for logger in loggers]
        barrier = Barrier(len(trainers))

        def begin(trainer, barrier=barrier):
            barrier.wait()
            start_run(trainer, None, training=True)

        with ThreadPoolExecutor(len(trainers)) as pool:
            list(pool.map(begin, trainers))
        assert sorted(logger.version for logger in loggers) == list(range(8))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "others", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["W&B alone", "W&B first"]
)
def test_a_run_logged_to_wandb_has_a_folder_of_its_own(tmp_path, monkeypatch, others):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = yaml.safe_load(RECIPE)
    wandb = {"class_path": "smmix_pl.runs.wandb_logger.WandbLogger"}
    config["trainer"]["logger"] = [wandb, *config["trainer"]["logger"][:others]]
    config["trainer"] |= {"limit_train_batches": 2, "limit_val_batches": 1, "max_epochs": 1}
    config["trainer"]["callbacks"] += ["smmix_pl.callbacks.ResultsFile"]
    Path("recipe.yaml").write_text(yaml.safe_dump(config))
    for seed in range(2):
        main(["fit", "--config=recipe.yaml", "--test_after_fit=true", f"--seed_everything={seed}"])
    name = "small" if others else "smmix_pl"
    for seed in range(2):
        run = Path(f"runs/{name}/version_{seed}")
        saved = yaml.safe_load((run / "config.yaml").read_text())
        assert saved["seed_everything"] == seed
        for file in ("results.json", "metrics.csv", "checkpoints/last.ckpt"):
            assert (run / file).is_file(), file
    assert not Path("runs/config.yaml").exists()


def test_a_start_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["fit", "--config=digits.yaml", "--trainer.max_epochs=-1"]
    assert "max_epochs" in refusal(main, words, capsys)
    assert not list(tmp_path.iterdir())
