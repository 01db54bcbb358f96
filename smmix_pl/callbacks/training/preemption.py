"""A run that is told to stop saves and ends; one that fails names its last good checkpoint."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.lightning_internals import launched_processes, step_metrics, validates_after_step
from smmix_pl.runs.checkpoint_io import last_checkpoint
from smmix_pl.runs.resume import JOB_FILE

STOPPED = 75
"""Exit status of a run that saved and ended before its time (sysexits.h: try again)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PATIENCE = 10.0
"""Seconds that the other ranks of a failed run have to say what they know."""


class Stopped(SystemExit):
    """The run was told to stop, and has saved."""


class Preemption(Callback):
    """On SIGTERM or SIGUSR1: finishes the optimizer step, saves ``last.ckpt`` and ends.

    The program then exits with status 75; ``--ckpt_path last`` goes on. SIGUSR1 in a SLURM job also
    requeues the job. All ranks stop at the same step, whichever of them was told. A signal during
    validation, or in an epoch's last step, is heeded after the next epoch's first step. (Between
    epochs Lightning cannot go on exactly. Where an epoch has one step alone, the run is not
    stopped: what kills it leaves the checkpoint of the epoch before.) An evaluation or prediction
    by itself has nothing to save, and ends at once.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._waited = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning, which would save in mid-step or not at all."""
        self._signal = signal.SIGTERM if trainer.received_sigterm else None
        self._listen(self._told)
        job = os.environ.get("SLURM_JOB_ID")
        folder = run_folder(trainer) if trainer.is_global_zero else None
        if job and folder is not None and folder.is_dir():
            (folder / JOB_FILE).write_text(job)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was logged after the last checkpoint."""
        _flush(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end, if a rank was told to and this is a place to go on from."""
        done = batch_idx + 1
        if done == trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        told = self._signal is not None
        if trainer.world_size > 1:  # Lightning waits for all ranks in each step as well
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        # Lightning would leave out a validation that is due here: so one more step
        if told and (self._waited or not validates_after_step(trainer)):
            self._stop(trainer)
        self._waited = told

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal end what is no training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._listen(signal.SIG_DFL)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal end what is no training."""
        self._listen(signal.SIG_DFL)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal end what is no training."""
        self._listen(signal.SIG_DFL)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write what was logged before: a checkpoint never is ahead of its log."""
        _flush(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Tell where to go on from, and see that no other rank waits for this one for ever."""
        if not isinstance(exception, SystemExit | KeyboardInterrupt):
            exception.last_good = _last_good(trainer)  # type: ignore[attr-defined]
        _end_others(launched_processes(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no longer."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _listen(self, handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
        self._before = {number: signal.signal(number, handler) for number in SIGNALS}

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _stop(self, trainer: Trainer) -> None:
        path = trainer.strategy.broadcast(_folder(trainer)) / "last.ckpt"
        _log_step(trainer)
        trainer.save_checkpoint(path)
        told = signal.Signals(self._signal).name if self._signal else "a signal to another rank"
        rank_zero_info(f"stopped by {told} at step {trainer.global_step}, saved {path}")
        requeued = _in_slurm(trainer) and self._signal == signal.SIGUSR1
        if requeued and trainer.is_global_zero:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
        # Lightning kills a run whose other ranks end with a status
        raise Stopped(STOPPED if trainer.is_global_zero else 0)


def _log_step(trainer: Trainer) -> None:
    """Log the step that has just ended, as Lightning would after this hook."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if trainer.is_global_zero and every and trainer.global_step % every == 0:
        values = step_metrics(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(
                values | {"epoch": trainer.current_epoch}, step=trainer.global_step - 1
            )


def _flush(trainer: Trainer) -> None:
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.save()


def _folder(trainer: Trainer) -> Path:
    """Where the run's checkpoints are."""
    kept = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    if kept and kept[0].dirpath:
        return Path(kept[0].dirpath)
    return (run_folder(trainer) or Path(trainer.default_root_dir)) / "checkpoints"


def _last_good(trainer: Trainer) -> Path | None:
    try:
        return last_checkpoint(_folder(trainer))
    except OSError:  # the disk is what failed
        return None


def _end_others(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let processes end by themselves for a while, and then kill them."""
    end = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _in_slurm(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, SLURMEnvironment) or (
        SLURMEnvironment.detect() and "SLURM_JOB_ID" in os.environ
    )
