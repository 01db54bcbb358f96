"""Checkpoints and run folders made by somebody else: nothing outside the run is changed or read."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.sampling import every
from helpers.small_recipe import RECIPE

from smmix_pl import InputError
from smmix_pl.cli.main import main
from smmix_pl.runs.checkpoint_io import AtomicCheckpointIO
from smmix_pl.runs.results import read_results

RUN = Path("runs/small/version_0")
QUICK = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]


def fit(epochs, *words):
    main(["fit", "--config", "recipe.yaml", f"--trainer.max_epochs={epochs}", *QUICK, *words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    with contextlib.chdir(folder):
        fit(1)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """The checkpoint of a copy of that run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return RUN / "checkpoints/last.ckpt"


def rejection(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", every(2, ["{folder}/../../../../precious", "{folder}/.."]))
@pytest.mark.parametrize("command", ["last", "copy"])
def test_a_checkpoint_cannot_name_what_is_removed(run, name, command):
    """Lightning removes the best checkpoints so far, as they are named in the file."""
    precious = Path("precious/photo.jpg")
    precious.parent.mkdir()
    precious.write_text("irreplaceable")
    content = torch.load(run, weights_only=True)
    path = name.format(folder=run.parent)
    folder = str(run.parent if command == "last" else Path("runs/small/version_1/checkpoints"))
    path = name.format(folder=folder)
    for key, state in content["callbacks"].items():
        if key.startswith("ModelCheckpoint"):
            state |= dict.fromkeys(
                ("best_model_path", "kth_best_model_path", "last_model_path"), path
            )
            state |= {"best_k_models": {path: torch.tensor(9.0)}, "dirpath": folder}
    file = run if command == "last" else Path("theirs.ckpt")
    torch.save(content, file)
    fit(3, "--ckpt_path", "last" if command == "last" else "theirs.ckpt")
    assert precious.read_text() == "irreplaceable"
    assert Path(folder, "last.ckpt").is_file()
    assert (RUN / "metrics.csv").is_file()


def test_only_checkpoint_files_of_the_run_are_removed(tmp_path, recwarn):
    own, other = tmp_path / "own", tmp_path / "other"
    (own / "folder.ckpt").mkdir(parents=True)
    other.mkdir()
    for file in (own / "notes.txt", own / "b.ckpt", other / "c.ckpt"):
        file.write_text("")
    (own / "link.ckpt").symlink_to(other / "c.ckpt")
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({}, own / "a.ckpt")
    for name in ("folder.ckpt", "notes.txt", "../other/c.ckpt", "..", "link.ckpt", "b.ckpt"):
        writer.remove_checkpoint(own / name)
    assert sorted(path.name for path in own.iterdir()) == ["a.ckpt", "folder.ckpt", "notes.txt"]
    assert [path.name for path in other.iterdir()] == ["c.ckpt"]


LINKS = [
    "metrics.csv",
    "metrics.unfinished",
    "config.yaml",
    "hparams.yaml",
    "results.json",
    "pictures",
    "checkpoints/last.ckpt.unfinished",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", every(3, LINKS))
def test_a_run_folder_with_a_link_out_of_it_is_not_resumed(run, name, capsys):
    secret = Path("secret").absolute()
    secret.write_text("secret")
    (RUN / name).unlink(missing_ok=True)
    os.symlink(secret, RUN / name)
    error = rejection(capsys, ["fit", "--config", "recipe.yaml", "--ckpt_path", "last", *QUICK])
    assert name in error
    assert secret.read_text() == "secret"


@pytest.mark.filterwarnings("ignore")
def test_no_command_writes_into_a_run_folder_with_a_link_out_of_it(run, capsys):
    Path("secret").write_text("secret")
    os.symlink(Path("secret").absolute(), RUN / "predictions.csv")
    words = ["--config", "recipe.yaml", "--ckpt_path", str(run)]
    error = rejection(capsys, ["test", *words, "--trainer.logger.init_args.version=0"])
    assert "predictions.csv" in error
    assert Path("secret").read_text() == "secret"


@pytest.mark.filterwarnings("ignore")
def test_a_pipe_in_a_run_folder_is_not_waited_for(run, capsys):
    (RUN / "metrics.csv").unlink()
    os.mkfifo(RUN / "metrics.csv")
    error = rejection(capsys, ["fit", "--config", "recipe.yaml", "--ckpt_path", "last", *QUICK])
    assert "metrics.csv" in error


def test_results_are_not_read_through_a_link_out_of_the_run(tmp_path):
    (tmp_path / "secret.json").write_text(json.dumps({}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").symlink_to("../secret.json")
    with pytest.raises(InputError, match=r"results\.json"):
        read_results(tmp_path / "run")


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", "pictures", "pictures/a.png"])
def test_a_run_folder_with_a_link_out_of_it_is_not_reported(tmp_path, monkeypatch, name, capsys):
    """The page would contain the file."""
    monkeypatch.chdir(tmp_path)
    private, link = Path("private"), Path("run") / name
    private.write_text("step,train/loss\n1,0.5\n")
    link.parent.mkdir(parents=True)
    Path("run/metrics.csv").write_text(private.read_text())
    link.unlink(missing_ok=True)
    link.symlink_to(private.absolute())
    error = rejection(capsys, ["report", "run"])
    assert f"run/{name}" in error
    assert not Path("report.html").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("file", "content"),
    [(".wandb_id", "../../x"), ("metrics.csv", "step,a\n1," + "x" * 200_000)],
)
def test_files_of_a_run_folder_are_validated(run, file, content, capsys):
    (RUN / file).write_text(content)
    logger = "--trainer.logger+={class_path: smmix_pl.runs.wandb_logger.WandbLogger}"
    words = ["fit", "--config", "recipe.yaml", "--ckpt_path", "last", *QUICK]
    words += [logger] if file == ".wandb_id" else []
    assert file.removesuffix(".csv") in rejection(capsys, words)


DAMAGES = {
    "callbacks": lambda c: c["callbacks"].update({key: {} for key in c["callbacks"]}),
    "best_model_path": lambda c: [s.update(best_model_path=3) for s in c["callbacks"].values()],
    "latest_update_step": lambda c: [
        s.update(latest_update_step="x") for s in c["callbacks"].values()
    ],
    "param_groups": lambda c: c["optimizer_states"][0].pop("param_groups"),
    "optimizer_states": lambda c: c.update(optimizer_states=None),
    "current_model_state": lambda c: c.update(current_model_state=[1]),
    "averaging_state": lambda c: c.pop("averaging_state"),
    "optim_progress": lambda c: c["loops"]["fit_loop"].pop(
        "epoch_loop.automatic_optimization.optim_progress"
    ),
    "scheduler_progress": lambda c: c["loops"]["fit_loop"].update(
        {"epoch_loop.scheduler_progress": 3}
    ),
    "ready": lambda c: c["loops"]["fit_loop"]["epoch_progress"]["total"].update(ready="x"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", every(5, DAMAGES))
def test_a_missing_or_mistyped_state_is_named(run, capsys, name):
    content = torch.load(run, weights_only=True)
    DAMAGES[name](content)
    torch.save(content, "damaged.ckpt")
    words = ["--config", "recipe.yaml", "--ckpt_path", "damaged.ckpt"]
    error = rejection(capsys, ["fit", *words, *QUICK])
    assert error.startswith("error: --ckpt_path=damaged.ckpt"), error
    assert name in error, error
