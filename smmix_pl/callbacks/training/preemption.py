"""Stopping a run on a signal, and what remains when a run fails."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.errors import one_line
from smmix_pl.lightning_internals import (
    cluster_environment,
    disable_signal_handlers,
    launched_processes,
    step_metrics,
    validates_after_step,
)
from smmix_pl.logged_steps import logs_this_step
from smmix_pl.runs.checkpoint_io import last_checkpoint
from smmix_pl.runs.run_files import write_atomic
from smmix_pl.runs.slurm import keep_job, requeue, slurm_job
from smmix_pl.runs.stop_signals import (
    END,
    SIGNALS,
    Stopped,
    listen,
    passed_on,
    restore,
    status_of_stop,
)
from smmix_pl.runs.wandb_logger import WandbLogger

PATIENCE = 10.0
"""Seconds that the other ranks of a failed run have to end by themselves."""


class Preemption(Callback):
    """Saves `last.ckpt` and exits with status 75 on SIGTERM, SIGUSR1, or SIGUSR2.

    `--ckpt_path last` resumes the run exactly. In a SLURM job, SIGUSR1 (or the requeue signal of
    Lightning's SLURMEnvironment) also requeues the job; W&B sweeps queue the run again. All ranks
    stop at the same step, whichever of them receives the signal.

    During training, the current optimizer step is finished first. A signal during a validation, or
    in the last step of an epoch, takes effect after the first step of the next epoch, because
    Lightning cannot resume exactly between epochs. Before training starts, and in `validate`,
    `test`, and `predict`, nothing has to be saved and the run exits at once.

    If a run fails, the error names the last good checkpoint. If another rank failed first, it also
    names that rank's error.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._folder = Path()
        self._training = False
        self._signal: int | None = None
        self._waited = False
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Handle signals in place of Lightning."""
        disable_signal_handlers(trainer)
        self._trainer, self._training = trainer, False
        self._folder = trainer.strategy.broadcast(
            run_folder(trainer) or Path(trainer.default_root_dir)
        )
        for file in (self._failure_file(trainer.global_rank), self._stop_file(trainer.global_rank)):
            file.unlink(missing_ok=True)  # left by an earlier run
        self._handlers = listen(self._receive, {*SIGNALS, _requeue_signal(trainer)} - {0})
        number = self._signal_to_any_rank(trainer)
        if number is not None:  # received when training had ended, before this test
            self._exit_without_saving(number)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, finish the step before stopping."""
        self._training = True
        folder = run_folder(trainer) if trainer.is_global_zero else None
        if folder is not None:
            keep_job(folder)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was logged after the last checkpoint."""
        _flush(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and exit if a rank received a signal and the run can be resumed from here."""
        done = batch_idx + 1
        if done == trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        number = self._signal_to_any_rank(trainer)
        # a validation that is due now would be skipped on resume, so train one more step
        if number is not None and (self._waited or not validates_after_step(trainer)):
            self._save(trainer, number)
            self._exit(number)
        self._waited = number is not None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the logs, so that a checkpoint is never ahead of them."""
        _flush(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Add the last good checkpoint and the first rank's error; end the other ranks."""
        processes = launched_processes(trainer)
        if isinstance(exception, SystemExit | KeyboardInterrupt):
            if not self._training:  # otherwise all ranks stop at the same step
                for process in processes:
                    process.send_signal(END)
            _end(processes)
            return
        self._stop_with_others(trainer)
        moment = time.time()
        if not trainer.is_global_zero:
            text = f"{moment}\n{type(exception).__name__}: {one_line(exception)}"
            write_atomic(self._failure_file(trainer.global_rank), text.encode())
        killed = _end(processes)
        if trainer.is_global_zero and (cause := self._earlier_failure(trainer, moment, killed)):
            exception.add_note(cause)
        last_good = _last_good(trainer)
        exception.last_good = last_good  # type: ignore[attr-defined]
        if last_good is not None:
            exception.add_note(f"Last good checkpoint: {last_good}. Resume with --ckpt_path last.")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that has ended needs no saving."""
        self._training = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the earlier signal handlers."""
        restore(self._handlers)
        self._handlers, self._trainer, self._training = {}, None, False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: in training at the end of the step, otherwise at once."""
        if (number == END or not self._training) and passed_on(number):
            return
        self._signal = number
        if self._training:
            return
        assert self._trainer is not None
        if self._trainer.world_size > 1:
            write_atomic(self._stop_file(self._trainer.global_rank), str(int(number)).encode())
        self._exit_without_saving(number)

    def _signal_to_any_rank(self, trainer: Trainer) -> int | None:
        """Return the same signal on all ranks, if one of them has received any."""
        if trainer.world_size == 1:
            return self._signal
        number = torch.tensor(self._signal or 0, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(number, reduce_op="max")) or None

    def _stop_with_others(self, trainer: Trainer) -> None:
        """Exit if the run fails because a rank that another program started was stopped."""
        for rank in range(trainer.world_size):
            file = self._stop_file(rank)
            if rank != trainer.global_rank and file.is_file():
                self._exit_without_saving(int(file.read_text()))

    def _save(self, trainer: Trainer, number: int) -> None:
        path = trainer.strategy.broadcast(_checkpoints(trainer)) / "last.ckpt"
        _log_step(trainer)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.mark_preempting()
            print(
                f"Stopped by {signal.Signals(number).name} at step {trainer.global_step}; saved "
                f"{path}. Resume with --ckpt_path last.",
                file=sys.stderr,
            )

    def _exit_without_saving(self, number: int) -> NoReturn:
        name = signal.Signals(number).name
        print(f"Stopped by {name} outside of training; nothing to save.", file=sys.stderr)
        self._exit(number)

    def _exit(self, number: int) -> NoReturn:
        assert self._trainer is not None
        if self._trainer.is_global_zero and number == _requeue_signal(self._trainer):
            requeue()
        raise Stopped(status_of_stop(self._trainer.is_global_zero))

    def _stop_file(self, rank: int) -> Path:
        return self._folder / f".stop_of_rank_{rank}"

    def _failure_file(self, rank: int) -> Path:
        return self._folder / f".failure_of_rank_{rank}"

    def _earlier_failure(self, trainer: Trainer, moment: float, killed: dict[int, int]) -> str:
        """Return the first error among the other ranks that is older than this one's, if any."""
        failures = []
        for rank in range(1, trainer.world_size):
            file = self._failure_file(rank)
            if file.is_file():
                time_of, _, error = file.read_text().partition("\n")
                failures.append((float(time_of), f"Rank {rank} failed first: {error}"))
                file.unlink()
            elif rank in killed:
                name = signal.Signals(killed[rank]).name
                failures.append((0.0, f"Rank {rank} failed first: killed by {name}."))
        earlier = [failure for failure in failures if failure[0] < moment]
        return min(earlier)[1] if earlier else ""


def _requeue_signal(trainer: Trainer) -> int:
    """Return the signal on which the SLURM job is run again, or 0 if there is none."""
    environment = cluster_environment(trainer)
    if isinstance(environment, SLURMEnvironment):
        return int(environment.requeue_signal or 0) if environment.auto_requeue else 0
    in_job = SLURMEnvironment.detect() and slurm_job() is not None
    return int(signal.SIGUSR1) if in_job else 0


def _log_step(trainer: Trainer) -> None:
    """Log the step that has just ended, as Lightning would after this hook."""
    if trainer.is_global_zero and logs_this_step(trainer):
        values = step_metrics(trainer) | {"epoch": trainer.current_epoch}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)


def _flush(trainer: Trainer) -> None:
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.save()


def _checkpoints(trainer: Trainer) -> Path:
    """Return the folder of the run's checkpoints."""
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    if callbacks and callbacks[0].dirpath:
        return Path(callbacks[0].dirpath)
    return (run_folder(trainer) or Path(trainer.default_root_dir)) / "checkpoints"


def _last_good(trainer: Trainer) -> Path | None:
    try:
        return last_checkpoint(_checkpoints(trainer))
    except OSError:  # the disk itself failed
        return None


def _end(processes: list[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Wait for the processes of other ranks, and kill those that do not end.

    The list is emptied, so that Lightning does not kill this process for their exit status.

    Returns:
        Signal by local rank of the processes that something else had killed.
    """
    end = time.monotonic() + PATIENCE
    killed = {}
    for rank, process in enumerate(processes, start=1):
        try:
            status = process.wait(max(0.0, end - time.monotonic()))
            if status < 0:
                killed[rank] = -status
        except subprocess.TimeoutExpired:
            process.kill()
    processes.clear()
    return killed
