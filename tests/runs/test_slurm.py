"""Lightning's SLURM environment decides on which signal a job is requeued."""

import os
import signal
from pathlib import Path

import pytest
from helpers.sampling import every
from helpers.small_recipe import RECIPE
from lightning.pytorch import Callback

from smmix_pl.cli.main import main

VARIABLES = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1"} | dict.fromkeys(
    ("PROCID", "LOCALID", "NODEID"), "0"
)
ENVIRONMENT = "lightning.pytorch.plugins.environments.SLURMEnvironment"


class StopSignal(Callback):
    """Sends a signal to this process in the first training step."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 0:
            os.kill(os.getpid(), signal.Signals[self.name])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("received", "settings", "requeued"),
    every(
        3,
        [
            ("SIGUSR2", ["requeue_signal=SIGUSR2"], True),
            ("SIGUSR1", ["requeue_signal=SIGUSR2"], False),
            ("SIGUSR2", [], False),
            ("SIGUSR1", ["auto_requeue=false"], False),
        ],
    ),
)
def test_the_requeue_signal_is_an_option(tmp_path, monkeypatch, received, settings, requeued):
    """A program named scontrol records its arguments in place of SLURM's."""
    monkeypatch.chdir(tmp_path)
    scontrol = Path("bin/scontrol")
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requested\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent.absolute()), prepend=os.pathsep)
    monkeypatch.setenv("SMMIX_PACKAGES", __name__)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    Path("recipe.yaml").write_text(RECIPE)
    words = ["fit", "--config=recipe.yaml", "--trainer.limit_val_batches=0"]
    words += [f"--trainer.callbacks+={__name__}.StopSignal", f"--trainer.callbacks.name={received}"]
    if settings:
        words += [f"--trainer.plugins={ENVIRONMENT}"]
        words += [f"--trainer.plugins.{setting}" for setting in settings]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 75
    assert Path("runs/small/version_0/checkpoints/last.ckpt").is_file()
    requested = Path("requested")
    assert (requested.read_text() if requested.exists() else "") == "requeue 7\n" * requeued
