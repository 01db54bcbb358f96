"""The command line: `lightning` and `smmix`, two names for one LightningCLI."""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.plugins.io import TorchCheckpointIO

from smmix_pl.callbacks import (  # all can then be named without a module
    NonFiniteGuard,
    PredictionsCSV,
    Preemption,
    ThrottledProgressBar,
)
from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.callbacks.output.results_file import description
from smmix_pl.checks import in_range
from smmix_pl.cli.config_paths import FROM_DATA, resolve_configs
from smmix_pl.cli.input_errors import input_error, plain, refused, report_input_errors
from smmix_pl.cli.trusted_packages import restrict_imports
from smmix_pl.data import EvalTransform, ImageData, TrainTransform
from smmix_pl.errors import InputError, did_you_mean
from smmix_pl.mixing import Mixer
from smmix_pl.models.weights import open_checkpoint
from smmix_pl.module import SMMixModule
from smmix_pl.optim import OptimConfig
from smmix_pl.runs.checkpoint_io import AtomicCheckpointIO
from smmix_pl.runs.process_state import unchanged_process
from smmix_pl.runs.start_run import start_run
from smmix_pl.runs.stop_signals import exit_on_signals
from smmix_pl.runs.wandb_logger import WandbLogger
from smmix_pl.seeding import run_seed

SECTIONS: dict[str, Callable[..., Any]] = {
    "model": SMMixModule,
    "data": ImageData,
    "trainer": Trainer,
}
BUILDING = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError),
    ValueError,
)
"""What libraries raise on arguments that they cannot use."""
UNFIT = {
    "BatchSizeFinder": "changes the batch that the learning rate follows",
    "GradientAccumulationScheduler": "changes the batch that the learning rate follows",
    "LearningRateFinder": "does not know model.optim.lr",
    "StochasticWeightAveraging": "replaces the schedule; EMA averages without",
}
"""Callbacks of Lightning's that do not go with ours, and why."""
RECIPES = (OptimConfig, TrainTransform, EvalTransform)


def main(args: ArgsType = None) -> None:
    """Run a subcommand (fit, validate, test, predict); the console scripts' entry point.

    Args:
        args: Command line words; null takes those of the program. Bad input is told in one sentence
            on stderr, with exit status 2; set ``SMMIX_DEBUG=1`` to see the traceback as well.
    """
    with exit_on_signals(), report_input_errors(), unchanged_process():
        restrict_imports()
        if args is None:
            sys.argv[1:] = resolve_configs(sys.argv[1:])
        elif isinstance(args, list):
            args = resolve_configs(args)
        SMMixCLI(
            SMMixModule,
            ImageData,
            subclass_mode_data=True,
            parser_class=Parser,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [Preemption()]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            args=args,
        )


class Parser(LightningArgumentParser):
    """Tells what is wrong with a command line in one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an `InputError` instead of printing the usage."""
        if "ImageData is abstract" in message:
            raise InputError(
                "no data set is named before --data.*; give --config, or --data CLASS, before it"
            ) from ex
        raise input_error(ex) or refused(message, nearest_names(message)) from ex


class SaveRunConfig(SaveConfigCallback):
    """Writes the config of a run into its own folder, and into the loggers that keep configs."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save, unless the run leaves no trace."""
        if trainer.loggers:
            # so that it begins a run of its own when it is used again
            self.config = Namespace({**vars(self.config), "ckpt_path": None})
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand the config to the loggers, with what it was run on and with."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        folder = run_folder(trainer)
        saved = (folder or Path()) / self.config_filename
        described = {"run": description(trainer, cast(SMMixModule, pl_module), saved)}
        for logger in trainer.loggers:
            logger.log_hyperparams(config | described)
            if isinstance(logger, WandbLogger) and folder is not None and stage == "fit":
                logger.keep_id(folder)


class SMMixCLI(LightningCLI):
    """LightningCLI with the model told by the data what it has to know."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link data to model; add what Lightning's trainer does not have."""
        for name in FROM_DATA:
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")
        parser.set_defaults({"model.mixer": {"class_path": "smmix_pl.SMMix"}})
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="After fit, test the best checkpoint.",
        )
        parser.add_lightning_class_args(NonFiniteGuard, "finite")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuse a seed that NumPy cannot take, and numbers that divide."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        if type(config.seed_everything) is int:
            in_range("seed_everything", config.seed_everything, 0, 2**32 - 1)
        lowest = {
            "accumulate_grad_batches": 1,
            "check_val_every_n_epoch": 1,
            "log_every_n_steps": 0,
            "gradient_clip_val": 0,
        }
        for name, low in lowest.items():
            if config.trainer[name] is not None:
                in_range(f"trainer.{name}", config.trainer[name], low)
        if config.trainer.val_check_interval == 0:
            raise InputError(
                "trainer.val_check_interval is 0; trainer.limit_val_batches 0 turns validation off"
            )
        needs = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
        limit = f"limit_{needs[self.config.subcommand]}_batches"
        if config.trainer[limit] == 0:
            raise InputError(
                f"trainer.{limit} is 0; {self.config.subcommand} needs batches to work on"
            )

    def before_instantiate_classes(self) -> None:
        """Look for the checkpoint before anything is built; leave out what is named twice."""
        trainer = self.config[self.subcommand].trainer
        for callback in list(trainer.callbacks or []):
            if trainer.callbacks.count(callback) > 1:  # a recipe and an overlay both name it
                trainer.callbacks.remove(callback)
            if (name := callback.class_path.rpartition(".")[2]) in UNFIT:
                raise InputError(f"{name} {UNFIT[name]}; take it out of trainer.callbacks")
        path = self.config[self.subcommand].get("ckpt_path")
        if path == "":
            raise InputError("--ckpt_path is empty; give a .ckpt file or last, or leave it out")
        if path == "best" and self.subcommand == "fit":
            raise InputError("fit has no best checkpoint yet; --ckpt_path takes a file or last")
        if path == "last" and self.subcommand != "fit":
            raise InputError(f"--ckpt_path last goes on with fit; {self.subcommand} takes a file")
        if path and self.subcommand != "fit":  # the checkpoint has all weights
            model = self.config[self.subcommand].model
            model.init_from, model.pretrained = None, False
        is_file = path and path not in ("best", "last", "hpc") and "://" not in path
        if is_file and not Path(path).is_file():  # torch unpickles what is in a folder of shards
            raise InputError(
                f"there is no checkpoint {path}; --ckpt_path takes a .ckpt file or last"
            )

    def instantiate_classes(self) -> None:
        """Build data, model and trainer.

        Raises:
            InputError: A value was accepted by its type, but not by what it is for.
        """
        try:
            super().instantiate_classes()
        except BUILDING as error:
            if input_error(error) is not None:
                raise
            told = plain(str(error)) or type(error).__name__
            raise InputError(
                f"what the config describes cannot be built ({told[:500]}); "
                "SMMIX_DEBUG=1 shows where"
            ) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's trainer, with our progress bar; predictions are written to a file."""
        config = self.config_init[self.subcommand].trainer
        added = self.trainer_defaults["callbacks"]
        named = config.callbacks or []
        has_bar = any(isinstance(one, ProgressBar) for one in named)
        if config.enable_progress_bar is not False and not has_bar:
            added.append(ThrottledProgressBar())
        writes = any(isinstance(one, PredictionsCSV) for one in named)
        if self.subcommand == "predict" and not writes:
            added.append(PredictionsCSV())
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Write whole checkpoints; name the W&B run; go on with a run where that was asked for."""
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = AtomicCheckpointIO()
        config = self.config_init[self.subcommand]
        tested = config.get("ckpt_path") if self.subcommand != "fit" else None
        trained = _trained_in(tested) if tested else {}
        mixer = trained.get("mixer", type(self.model.mixer).__name__)
        seed = trained.get("seed", run_seed())
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                backbone, data = self.model.hparams["backbone"], type(self.datamodule).__name__
                logger.name_after(str(self.subcommand), backbone, mixer, data, seed)
        config["ckpt_path"] = start_run(
            self.trainer, config["ckpt_path"], training=self.subcommand == "fit"
        )

    def after_fit(self) -> None:
        """Test the best checkpoint, if asked to."""
        if self.config.fit.test_after_fit:
            saved = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
            ckpt_path = "best" if saved else None  # a fast_dev_run saves nothing
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=ckpt_path)

    def _parse_ckpt_path(self) -> None:
        """Leave the config as the user wrote it.

        Lightning would let the hyper-parameters in the checkpoint silently win over it.
        """


def _trained_in(path: str) -> dict[str, Any]:
    """How the weights in a checkpoint came about, as far as it says so."""
    content = open_checkpoint(Path(path))
    found = content.get("trained") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def nearest_names(message: str) -> str:
    """A hint for a message of jsonargparse about a name that it does not accept; else nothing."""
    lost = re.search(r"(?:dot import path string: |has no attribute ')(\w+)", message)
    if lost is not None:
        return "; " + did_you_mean(lost[1], {one.__name__ for one in subclasses(Mixer, ImageData)})
    found = re.search(r"(?:[Oo]ption '|unrecognized arguments: --)([\w.]+)", message)
    if found is None or "before subcommand" in message:
        return ""
    section, *names = found[1].split(".")
    own = inspect.signature(SECTIONS[section]).parameters if section in SECTIONS else {}
    if own and names and names[0] not in own:
        return "; " + did_you_mean(f"{section}.{names[0]}", [f"{section}.{name}" for name in own])
    if not own and names and section.isidentifier() and "Subcommand" in message:
        return "; " + did_you_mean(section, SECTIONS)
    owners: list[Callable[..., Any]] = [ImageData, *subclasses(ImageData, Mixer), *RECIPES]
    nested = {name for owner in owners for name in inspect.signature(owner).parameters}
    return "; " + did_you_mean(found[1].split(".")[-1], nested)


def subclasses(*bases: type) -> list[type]:
    """All classes below some, however far."""
    below: list[type] = []
    for base in bases:
        direct: list[type] = base.__subclasses__()
        below += direct + subclasses(*direct)
    return below
