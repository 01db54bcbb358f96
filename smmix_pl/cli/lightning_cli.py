"""The LightningCLI behind `fit`, `validate`, `test`, and `predict`."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from smmix_pl.callbacks import (  # importing all lets configs name them without their module
    Evaluation,
    NonFiniteGuard,
    PredictionsCSV,
    Preemption,
    ProgressLines,
    ThrottledProgressBar,
)
from smmix_pl.callbacks.output.run_summary import best_checkpoint
from smmix_pl.checks import in_range
from smmix_pl.cli.config_paths import FROM_DATA, default_configs, named_model, resolve_configs
from smmix_pl.cli.input_errors import (
    input_error,
    parser_error,
    plain,
)
from smmix_pl.cli.name_hints import nearest_names
from smmix_pl.cli.path_settings import expand_settings
from smmix_pl.cli.precision import resolve_precision
from smmix_pl.cli.pretrained_settings import prepare_as_pretrained
from smmix_pl.cli.quiet_libraries import quiet_libraries
from smmix_pl.cli.run_names import (
    CHANGED_SETTINGS,
    arguments,
    changed_settings,
    folder_name,
    import_class,
    run_subject,
)
from smmix_pl.cli.saved_config import SaveRunConfig
from smmix_pl.cli.trusted_packages import restrict_imports
from smmix_pl.data import ImageData
from smmix_pl.data.base import SPLITS_OF_STAGE, BaseData
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import ConfigPrecedenceCLI
from smmix_pl.module import SMMixModule
from smmix_pl.runs.checkpoint_checks import provenance
from smmix_pl.runs.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from smmix_pl.runs.process_state import unchanged_process
from smmix_pl.runs.start_run import start_run, tested_run
from smmix_pl.runs.wandb_logger import WandbLogger, finished_run
from smmix_pl.seeding import run_seed

CONSTRUCTION_ERRORS = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError),
    ValueError,
)
"""What libraries raise for arguments that they cannot use."""
UNSUPPORTED_CALLBACKS = {
    "BatchSizeFinder": "it changes the batch size, which the learning rate is scaled by",
    "GradientAccumulationScheduler": "it changes the global batch size during the run",
    "LearningRateFinder": "it does not support model.optim.lr",
    "StochasticWeightAveraging": "it replaces the schedule. Use EMA instead",
}
LOWER_BOUNDS = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "gradient_clip_val": 0,
}
"""Trainer settings that Lightning does not check."""


def run(words: Sequence[str]) -> None:
    """Run a training command.

    Args:
        words: The command and its options.
    """
    restrict_imports()
    command = words[0]

    with unchanged_process(), quiet_libraries(), finished_run():
        if command != "fit":  # an evaluation saves no checkpoints
            warnings.filterwarnings("ignore", "The dirpath has changed")
        words = resolve_configs(list(words))
        task = named_model(words) is not None
        CommandCLI(
            command,
            parser_kwargs={command: {"default_config_files": default_configs(task)}},
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            args=words,
            **cli_options() | (task_options() if task else {}),
        )


class Parser(LightningArgumentParser):
    """LightningCLI's parser, with errors of one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error for an invalid command line instead of printing the usage."""
        if "Data is abstract" in message:
            raise InputError(
                "--data: no dataset is named before --data.*. Put --config or --data CLASS first."
            ) from ex
        if "arguments are required" in message:
            raise parser_error(message, "Pass --config NAME or --data CLASS.") from ex
        raise input_error(ex) or parser_error(message, nearest_names(message)) from ex


class SMMixCLI(ConfigPrecedenceCLI):
    """LightningCLI with model settings linked from the data, run names, and resuming."""

    subcommand: str | None = None

    @property
    def settings(self) -> Namespace:
        """The parsed options of the subcommand, or of a program without subcommands."""
        command = self.config.get("subcommand")
        return self.config[command] if command else self.config

    @property
    def instantiated(self) -> Namespace:
        """The same as `settings`, with objects in place of their options."""
        return self.config_init[self.subcommand] if self.subcommand else self.config_init

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link data to model, and add what Lightning's Trainer does not have."""
        model = "model.init_args" if self.subclass_mode_model else "model"
        for name in FROM_DATA:
            parser.link_arguments(f"data.{name}", f"{model}.{name}", apply_on="instantiate")
        if not self.subclass_mode_model:
            parser.set_defaults({"model.mixer": {"class_path": "smmix_pl.SMMix"}})
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Name of the run: the folder below save_dir. Default: DATA/MODEL-MIXER.",
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Test the best checkpoint after fit."
        )
        parser.add_argument(
            "--auto_precision",
            type=bool,
            default=False,
            help="Without trainer.precision, use bf16-mixed if the device has bf16, else 32-true.",
        )
        parser.add_lightning_class_args(NonFiniteGuard, "finite")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, expand paths, and reject numbers that Lightning accepts and fails on later."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            super().parse_arguments(parser, args)
        settings = expand_settings(self.settings)
        if type(settings.seed_everything) is int:
            in_range("seed_everything", settings.seed_everything, 0, 2**32 - 1)
        for name, low in LOWER_BOUNDS.items():
            if settings.trainer[name] is not None:
                in_range(f"trainer.{name}", settings.trainer[name], low)
        if settings.trainer.val_check_interval == 0:
            raise InputError(
                "trainer.val_check_interval=0: must be above 0. Set trainer.limit_val_batches=0 to "
                "turn validation off."
            )
        command = self.config.get("subcommand") or "fit"
        limit = f"limit_{SPLITS_OF_STAGE[command][0]}_batches"
        if settings.trainer[limit] == 0:
            raise InputError(f"trainer.{limit}=0: {command} needs batches. Remove the option.")

    def before_instantiate_classes(self) -> None:
        """Merge callbacks, set precision and name, and check `--ckpt_path` before all is built."""
        settings = self.settings
        model, trainer = arguments(settings.model), settings.trainer
        trainer.callbacks = merged_callbacks(trainer.callbacks or [])
        trainer.precision = resolve_precision(
            trainer.precision, trainer.accelerator, settings.auto_precision
        )
        self._name_loggers()
        prepare_as_pretrained(settings)
        path = settings.get("ckpt_path")
        if path == "":
            raise InputError("--ckpt_path=: is empty. Pass a .ckpt file or last, or remove it.")
        if path == "best" and self.subcommand == "fit":
            raise InputError(
                "--ckpt_path=best: fit has no best checkpoint yet. Pass a file or last."
            )
        if path == "last" and self.subcommand != "fit":
            raise InputError(
                "--ckpt_path=last: only fit can resume from the last checkpoint. Pass a checkpoint "
                f"file to {self.subcommand}."
            )
        if path and self.subcommand != "fit":  # the checkpoint has all weights
            model.init_from, model.pretrained = None, False
        untrained = not (path or model.get("init_from") or model.get("pretrained"))
        if self.subcommand in ("validate", "test", "predict") and untrained:
            raise InputError(
                f"--ckpt_path: missing, so that {self.subcommand} would evaluate untrained weights."
                " Pass a checkpoint, or set --model.pretrained true or --model.init_from."
            )
        is_file = path and path not in ("best", "last", "hpc") and "://" not in path
        if is_file and not Path(path).is_file():  # torch would unpickle a folder of shards
            raise InputError(f"--ckpt_path={path}: no such file. Pass a .ckpt file or last.")

    def instantiate_classes(self) -> None:
        """Build data, model, and trainer.

        Raises:
            InputError: A value has the right type but cannot be used.
        """
        try:
            super().instantiate_classes()
        except CONSTRUCTION_ERRORS as error:
            if input_error(error) is not None:
                raise
            message = plain(str(error)) or type(error).__name__
            raise InputError(
                f"the config describes what cannot be built ({message[:500]}). Set SMMIX_DEBUG=1 "
                "to see where."
            ) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with this package's progress bar and prediction writer."""
        config = self.instantiated
        added = self.trainer_defaults["callbacks"]
        named = config.trainer.callbacks or []
        has_bar = any(isinstance(callback, ProgressBar) for callback in named)
        if config.trainer.enable_progress_bar is not False and not has_bar:
            added.append(ThrottledProgressBar() if sys.stdout.isatty() else ProgressLines())
        writes = any(isinstance(callback, PredictionsCSV) for callback in named)
        if self.subcommand == "predict" and not writes:
            added.append(PredictionsCSV())
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Set checkpoint IO and the W&B run's name, and resume if that was requested."""
        config = self.instantiated
        evaluates = self.subcommand not in (None, "fit")
        if evaluates and not config.get("ckpt_path") and not self.model.has_trained_head:
            raise InputError(
                "model: the weights have no class head for the classes of the data, so that "
                f"{self.subcommand} would evaluate a random one. Pass a checkpoint as --ckpt_path."
            )
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = AtomicCheckpointIO()
        self._name_wandb_runs()
        checkpoint = start_run(self.trainer, config.get("ckpt_path"), self.subcommand == "fit")
        if self.subcommand:
            config["ckpt_path"] = checkpoint

    def after_fit(self) -> None:
        """Test the best checkpoint, if requested."""
        if self.settings.test_after_fit:
            saved = best_checkpoint(self.trainer)
            best = saved.best_model_path if saved is not None else ""
            # a fast_dev_run saves nothing
            self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False
            )

    def _name_loggers(self) -> None:
        """Give CSV loggers without a name the run's name, which is their folder.

        A test without `--name` writes into the run that it tests.
        """
        settings = self.settings
        data = settings.data
        root = (data.get("init_args") or Namespace()).get("root")
        values = {"name": settings.name or folder_name(settings)}
        if self.subcommand == "test" and settings.name is None and settings.ckpt_path:
            run = tested_run(settings.ckpt_path, data.class_path, root)
            if run is not None:
                values = {"save_dir": str(run.parent), "name": "", "version": run.name}
        loggers = settings.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            is_csv = isinstance(logger, Namespace) and logger.class_path.endswith(
                CSVLogger.__name__
            )
            if is_csv and logger.init_args.name is None:
                logger.init_args.update(Namespace(values))

    def _name_wandb_runs(self) -> None:
        """Name W&B runs by their settings: a test by those that its checkpoint was trained with."""
        path = self.settings.get("ckpt_path") if self.subcommand not in (None, "fit") else None
        checkpoint = read_checkpoint(path) if path else {}
        trained = provenance(checkpoint)
        backbone, mixer, data = run_subject(self.settings)
        changes = checkpoint.get(CHANGED_SETTINGS)
        if not isinstance(changes, list):
            changes = changed_settings(self.settings)
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.name_after(
                    str(self.subcommand),
                    (backbone, str(trained.get("mixer", mixer)), data),
                    [str(change) for change in changes],
                    trained.get("seed", run_seed()),
                )


class CommandCLI(SMMixCLI):
    """Parses only the command that was typed, because each adds a parser of all options."""

    def __init__(self, command: str, **options: Any) -> None:
        self._command = command
        super().__init__(**options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the command and the arguments that are not options."""
        return {self._command: SMMixCLI.subcommands()[self._command]}


def cli_options() -> dict[str, Any]:
    """Return the arguments that every SMMixCLI is made with."""
    return {
        "model_class": SMMixModule,
        "datamodule_class": ImageData,
        "subclass_mode_data": True,
        "parser_class": Parser,
        "trainer_defaults": {"callbacks": [Preemption()]},
        "seed_everything_default": 0,
        "auto_configure_optimizers": False,
    }


def task_options() -> dict[str, Any]:
    """Return the arguments of an SMMixCLI whose model is another class, named by its path."""
    import smmix_pl.downstream  # noqa: F401  # so that its classes can be named without the module

    return {
        "model_class": LightningModule,
        "subclass_mode_model": True,
        "datamodule_class": BaseData,
    }


def merged_callbacks(callbacks: list[Namespace]) -> list[Namespace]:
    """Let a later callback replace an earlier one of the same class.

    So an overlay can change the arguments of a callback that a recipe names. Checkpoint callbacks
    are replaced by file name, and evaluations only if all arguments are equal, because one class
    may measure several things.

    Raises:
        InputError: A callback cannot be used with this package.
    """
    merged: dict[Any, Namespace] = {}
    for callback in callbacks:
        name = callback.class_path.rpartition(".")[2]
        if name in UNSUPPORTED_CALLBACKS:
            raise InputError(
                f"trainer.callbacks={name}: cannot be used, because {UNSUPPORTED_CALLBACKS[name]}. "
                "Remove it."
            )
        kind = import_class(callback.class_path)
        arguments = callback.get("init_args") or Namespace()
        key: tuple[Any, ...] = (kind,)
        if issubclass(kind, ModelCheckpoint):
            key = (kind, arguments.get("filename"))
        elif issubclass(kind, Evaluation):
            key = (kind, str(arguments))
        merged[key] = callback
    return list(merged.values())
