"""Signals, full disks, and folders that vanish: the run saves, or prints a one-line error."""

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import processes
from helpers.image_folders import write_image_folder
from helpers.processes import Environment
from helpers.sampling import every
from helpers.small_recipe import FIT, write_recipe


class Outcome(NamedTuple):
    """The exit status of a run, and what it printed."""

    status: int
    output: str


def checkpoints(folder: Path) -> dict[Path, int]:
    """Return the time at which each last checkpoint was written."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("last.ckpt")}


def run(
    folder: Path,
    *words: object,
    act: signal.Signals | Callable[[], object] | None = None,
    env: Environment | None = None,
) -> Outcome:
    """Run a program; send a signal, or call a function, once it has written a checkpoint."""
    logs = [folder / f"log.{stream}" for stream in ("out", "err")]
    for log in logs:
        log.unlink(missing_ok=True)
    before = checkpoints(folder)
    process = processes.start(words, folder, env)
    while act and process.is_alive() and checkpoints(folder) == before:
        time.sleep(0.005)
    if callable(act):
        act()
    elif act and process.pid:
        os.kill(process.pid, act)
    process.join()
    return Outcome(process.exitcode or 0, "".join(log.read_text() for log in logs))


def error_of(outcome: Outcome) -> str:
    """Return the last line of a run that ends with an error line and without a traceback."""
    assert outcome.status == 2, outcome.output[-2000:]
    assert "Traceback" not in outcome.output
    line = outcome.output.strip().splitlines()[-1]
    assert line.startswith("error: "), line
    return line


LONG = (*FIT, "--trainer.max_epochs=8")
RESUMED = (*LONG, "--ckpt_path", "last")
LAST = "runs/small/version_0/checkpoints/last.ckpt"


def test_a_signal_saves_and_the_run_resumes_exactly(tmp_path):
    write_recipe(tmp_path)
    straight = run(tmp_path, *LONG, "--trainer.logger.init_args.name=straight")
    stopped = run(tmp_path, *LONG, act=signal.SIGTERM)
    again = run(tmp_path, *RESUMED, act=signal.SIGUSR1)
    finished = run(tmp_path, *RESUMED)
    outcomes = [straight, stopped, again, finished]
    assert [outcome.status for outcome in outcomes] == [0, 75, 75, 0], outcomes
    for outcome, name in ((stopped, "SIGTERM"), (again, "SIGUSR1")):
        assert name in outcome.output
        assert "last.ckpt" in outcome.output
        assert "Traceback" not in outcome.output
    ends = [
        torch.load(tmp_path / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)
        for name in ("straight", "small")
    ]
    for name, weight in ends[0]["current_model_state"].items():
        assert torch.equal(weight, ends[1]["current_model_state"][name]), name
    logs = []
    for name in ("straight", "small"):
        with (tmp_path / f"runs/{name}/version_0/metrics.csv").open() as file:
            logs.append([(r["step"], r["train/loss"]) for r in csv.DictReader(file)])
    assert logs[0] == logs[1]


SIGNALING = """
import os

from lightning.pytorch import Callback


class Signaling(Callback):
    def __init__(self, hook: str, number: int) -> None:
        self.hook, self.number = hook, number
        setattr(self, hook, self.send)

    def send(self, trainer, *_, **__):
        if self.number and not (trainer.sanity_checking and "validation_batch" in self.hook):
            os.kill(os.getpid(), self.number)
            self.number = 0
"""


HOOKS = [
    "setup",
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_train_epoch_end",
    "on_validation_batch_start",
    "on_save_checkpoint",
    "on_train_end",
    "on_test_batch_start",
]


def signaling(hook: str, number: signal.Signals) -> list[str]:
    """Return options that add a callback which sends a signal to its own process."""
    return [
        *("--trainer.callbacks+=signaling.Signaling", f"--trainer.callbacks.hook={hook}"),
        f"--trainer.callbacks.number={int(number)}",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_signal_in_any_phase_exits_with_status_75(tmp_path, hook, number):
    (write_recipe(tmp_path) / "signaling.py").write_text(SIGNALING)
    status, output = run(
        tmp_path,
        *(*FIT, "--trainer.max_epochs=2", "--trainer.limit_train_batches=3"),
        *("--test_after_fit=true", "--trainer.limit_val_batches=2"),
        *("--trainer.limit_test_batches=1", *signaling(hook, number)),
        env={"SMMIX_PACKAGES": "signaling"},
    )
    assert status == 75, output[-1000:]
    assert "Stopped by SIG" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_an_evaluation_stops_at_once(tmp_path):
    (write_recipe(tmp_path) / "signaling.py").write_text(SIGNALING)
    assert run(tmp_path, *FIT, "--trainer.max_epochs=1").status == 0
    status, output = run(
        tmp_path,
        *("test", *FIT[1:], "--ckpt_path", LAST, *signaling("on_test_batch_end", signal.SIGTERM)),
        env={"SMMIX_PACKAGES": "signaling"},
    )
    assert status == 75, output[-1000:]
    assert "SIGTERM" in output


TWO_RUNS = """
import gc
import json
import os
import signal

import torch
from helpers.sampling import every
from lightning.pytorch import LightningModule, Trainer

from smmix_pl.cli.main import main


def state():
    handlers = [str(signal.getsignal(number)) for number in (2, 10, 15)]
    switches = [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic]
    return [*handlers, *switches, torch.get_num_threads(), os.environ.get("PL_GLOBAL_SEED")]


before = state()
for name in ("one", "two"):
    options = ["max_epochs=1", "deterministic=true", f"logger.init_args.name={name}"]
    options = [f"--trainer.{option}" for option in options]
    main(["fit", "--config", "recipe.yaml", "--test_after_fit=true", *options])
after = state()
gc.collect()
left = [type(o).__name__ for o in gc.get_objects() if isinstance(o, (Trainer, LightningModule))]
print(json.dumps([before, after, left]))
"""


@pytest.mark.slow
def test_a_run_leaves_its_process_unchanged(tmp_path):
    (write_recipe(tmp_path) / "two_runs.py").write_text(TWO_RUNS)
    result = processes.run("two_runs.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    before, after, left = json.loads(result.stdout.splitlines()[-1])
    assert before == after
    assert left.count("Trainer") <= 1  # of the last run; jsonargparse may keep its last parser


SCONTROL = """#!/bin/sh
echo "$@" >> {folder}/requested
"""
SLURM = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.slow
@pytest.mark.parametrize("array", [False, True], ids=["job", "array"])
def test_slurm_requeues_the_job_which_resumes_its_own_run(tmp_path, array):
    """A program named scontrol records its arguments in place of SLURM's."""
    scontrol = write_recipe(tmp_path) / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(SCONTROL.format(folder=tmp_path))
    scontrol.chmod(0o755)
    job = SLURM | {"PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    other = job | {"SLURM_JOB_ID": "8"}
    if array:
        job |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
        other |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"}
    outcomes = [
        run(tmp_path, *LONG, act=signal.SIGUSR1, env=job),
        run(tmp_path, *FIT, "--trainer.max_epochs=1", env=other),
        run(tmp_path, *LONG, env=job | {"SLURM_RESTART_COUNT": "1"}),
    ]
    assert [outcome.status for outcome in outcomes] == [75, 0, 0], outcomes
    requested = (tmp_path / "requested").read_text().split()
    assert requested == ["requeue", "7_3" if array else "7"]
    assert LAST in outcomes[2].output


@pytest.mark.slow
def test_without_scontrol_the_run_still_saves_and_exits_with_status_75(tmp_path):
    write_recipe(tmp_path)
    status, output = run(tmp_path, *LONG, act=signal.SIGUSR1, env=SLURM | {"PATH": "/none"})
    assert status == 75, output[-2000:]
    assert "scontrol" in output
    assert "last.ckpt" in output


LIMITED = """
import resource
import sys

from smmix_pl.cli.main import main

resource.setrlimit(resource.RLIMIT_FSIZE, 2 * [int(sys.argv[1])])
main(sys.argv[2:])
"""
"""Runs a command with a limit on the size of files, as on a disk that is full."""


@pytest.mark.parametrize("case", every(3, ["full disk", "read-only folder", "a file for a folder"]))
def test_a_run_that_cannot_be_written_prints_one_line(tmp_path, case):
    (write_recipe(tmp_path) / "limited.py").write_text(LIMITED)
    (tmp_path / "file").touch()
    into = "--trainer.logger.init_args.save_dir="
    words = {
        "full disk": ["limited.py", 300_000, *FIT],
        "read-only folder": [*FIT, f"{into}/proc/none"],
        "a file for a folder": [*FIT, f"{into}file"],
    }
    error_of(run(tmp_path, *words[case]))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """The first run fits on the disk; the second resumes with a limit on file sizes."""
    (write_recipe(tmp_path) / "limited.py").write_text(LIMITED)
    assert run(tmp_path, *LONG, act=signal.SIGTERM).status == 75
    size = (tmp_path / LAST).stat().st_size
    error = error_of(run(tmp_path, "limited.py", size // 2, *RESUMED))
    assert "File too large" in error
    assert LAST in error
    finished = run(tmp_path, *RESUMED)
    assert finished.status == 0, finished.output[-2000:]


@pytest.mark.parametrize("policy", ["stop", pytest.param("skip", marks=pytest.mark.slow)])
def test_a_data_folder_that_vanishes_is_named_with_the_last_good_checkpoint(tmp_path, policy):
    images = write_recipe(tmp_path) / "images"
    write_image_folder(images / "train", per_class=16)
    write_image_folder(images / "val", per_class=2)
    outcome = run(
        tmp_path,
        *(*FIT, "--data=smmix_pl.data.Folder", "--data.root=images", "--data.batch_size=4"),
        *("--data.image_size=16", f"--data.bad_images={policy}", "--trainer.max_epochs=1000"),
        act=lambda: images.rename(tmp_path / "gone"),
    )
    error = error_of(outcome)
    assert "images/" in error
    assert LAST in error
