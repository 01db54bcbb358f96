"""Every private name of Lightning that this package uses, with the reason.

Checked with Lightning 2.6.6. setup.cfg caps the version; when it is raised, check each function.
"""

from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher


def is_local(path: str | Path) -> bool:
    """Return True if a path is on a local file system, as Lightning decides it."""
    return _is_local_file_protocol(str(path))


def reset_step_metrics(trainer: Trainer) -> None:
    """Drop the values of earlier steps, which Lightning would log again for this one.

    A step that does not log a key repeats its last value otherwise: losses of the SMMix branch
    would appear at Mixup steps.
    """
    for metric in trainer._results.result_metrics:  # type: ignore[union-attr]
        if metric.meta.on_step and not metric.meta.on_epoch:
            metric.reset()


def step_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the values that Lightning is about to hand to the loggers for the step that ended.

    `Trainer.logged_metrics` also holds values of earlier steps and validations.
    """
    values = trainer._logger_connector.metrics["log"]
    return {name: float(value) for name, value in values.items()}


def validates_after_step(trainer: Trainer) -> bool:
    """Return True if Lightning runs a validation after the current training step."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def launched_processes(trainer: Trainer) -> Sequence[Popen[bytes]]:
    """Return the processes of the other local ranks that this one started."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else ()


def skip_finished_epoch(trainer: Trainer) -> None:
    """Start the next epoch when a run limited by ``max_steps`` resumes at the end of an epoch.

    Lightning treats that epoch as unfinished and counts it twice, without training in it. Call this
    when training starts; it has no effect otherwise.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop.restarted_on_epoch_end and trainer.max_steps != -1:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False


def configured_version(logger: CSVLogger) -> int | str | None:
    """Return the version a CSVLogger was given; its ``version`` would choose and keep a new one."""
    return logger._version


def set_version(logger: CSVLogger, version: int | str) -> None:
    """Make a CSVLogger write to an existing version folder."""
    logger._version = version


def wandb_init_args(logger: WandbLogger) -> dict[str, Any]:
    """Return the arguments that a WandbLogger will pass to `wandb.init`, to be changed in place."""
    init_args: dict[str, Any] = logger._wandb_init
    return init_args


def set_wandb_id(logger: WandbLogger, run_id: str) -> None:
    """Make a WandbLogger resume a run."""
    logger._wandb_init["id"] = logger._id = run_id


def is_attached(module: LightningModule) -> bool:
    """Return True if a trainer runs the module; its `trainer` raises otherwise."""
    return module._trainer is not None
