"""Every private name of Lightning that this package uses, with the reason.

Checked with Lightning 2.6.6. setup.cfg caps the version; when it is raised, check each function.
"""

from math import inf
from pathlib import Path
from subprocess import Popen
from typing import Any, cast

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningCLI
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


def validation_was_due(trainer: Trainer, fit_loop: dict[str, Any]) -> bool:
    """Return True if a validation follows the batch after which a checkpoint was saved.

    Args:
        trainer: Trainer that is about to resume.
        fit_loop: Saved progress of the fit loop, within an epoch.
    """
    every = trainer.check_val_every_n_epoch
    epoch = fit_loop["epoch_progress"]["current"]["completed"] + 1
    if not trainer.enable_validation or (every is not None and epoch % every):
        return False
    trainer.fit_loop.setup_data()  # counts the batches
    batches = fit_loop["epoch_loop.batch_progress"]
    if trainer.val_check_batch == inf:
        return bool(batches["is_last_batch"])
    ready = batches["total" if every is None else "current"]["ready"]
    return trainer.val_check_batch is not None and ready % trainer.val_check_batch == 0


def repeat_validation(fit_loop: dict[str, Any]) -> None:
    """Make saved progress resume with the validation after its last batch.

    Lightning runs a validation on resume only if one was interrupted, so the progress is changed to
    say that: one validation batch was started but not processed. `skip_finished_epoch` removes it.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        counts["completed"] = counts["processed"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    validation["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["current"] |= {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    validation["is_last_batch"] = False


def skip_finished_epoch(trainer: Trainer) -> None:
    """Correct the restored progress when training starts. Has no effect in a new run.

    A run limited by `max_steps` that resumes at the end of an epoch starts the next one; Lightning
    would count the epoch twice, without training in it. A validation that is run again after an
    interruption counts its batches once.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop.restarted_on_epoch_end and trainer.max_steps != -1:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False
    validation = loop.epoch_loop.val_loop
    if validation.restarted_mid_evaluation:
        validation.batch_progress.total.reset_on_restart()


def disable_signal_handlers(trainer: Trainer) -> None:
    """Keep Lightning from installing signal handlers.

    On SIGTERM they end the run with status 0 within an epoch, or wait for the other ranks inside
    the handler. On SLURM they save in the middle of a step.
    """
    setattr(trainer._signal_connector, "register_signal_handlers", _do_nothing)  # noqa: B010


def _do_nothing() -> None:
    """Replace a method that takes no arguments; unlike a lambda, it can be pickled."""


def cluster_environment(trainer: Trainer) -> ClusterEnvironment:
    """Return the environment that started the processes; a strategy for one device has none."""
    return trainer._accelerator_connector.cluster_environment


def launched_processes(trainer: Trainer) -> list[Popen[bytes]]:
    """Return the processes of the other local ranks that this one started.

    A thread of Lightning's kills this process soon after one in the list has failed.
    """
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []


def configured_version(logger: CSVLogger) -> int | str | None:
    """Return the version a CSVLogger was given; its `version` would choose and keep a new one."""
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


class ConfigPrecedenceCLI(LightningCLI):
    """LightningCLI with quiet defaults, whose settings come from configs and options only.

    With `--ckpt_path`, Lightning would let the hyperparameters in the checkpoint override them
    without notice, and it has no public switch for that.
    """

    def _parse_ckpt_path(self) -> None:
        """Leave the config as the user wrote it."""

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        """Return the parser of a command, which by default prints no second table of results.

        Nor are all predictions kept in memory, which are written to a file.
        """
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.set_defaults(return_predictions=False)
        elif subcommand == "test":
            parser.set_defaults(verbose=False)
        return parser


def average_module(callback: WeightAveraging) -> LightningModule:
    """Return the module with averaged weights; during a validation, the weights are swapped."""
    assert callback._average_model is not None, "the callback is set up"
    return cast(LightningModule, callback._average_model.module)


def averaged_steps(callback: WeightAveraging) -> int:
    """Return the number of steps that the averaged weights contain, restored by a resume."""
    assert callback._average_model is not None, "the callback is set up"
    return int(callback._average_model.n_averaged)


def count_step(callback: WeightAveraging, trainer: Trainer) -> bool:
    """Count a step as averaged. Return False if the batch did not end an optimizer step."""
    if trainer.global_step <= callback._latest_update_step:
        return False
    assert callback._average_model is not None, "the callback is set up"
    callback._latest_update_step = trainer.global_step
    callback._average_model.n_averaged += 1
    return True


def is_attached(module: LightningModule) -> bool:
    """Return True if a trainer runs the module; its `trainer` raises otherwise."""
    return module._trainer is not None
