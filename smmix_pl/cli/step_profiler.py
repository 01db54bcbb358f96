"""Real training steps of a recipe on random images, without callbacks that only observe."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch.utils.data import DataLoader

from smmix_pl.cli.config_paths import default_configs, resolve_configs
from smmix_pl.cli.lightning_cli import SMMixCLI, cli_options
from smmix_pl.data import ImageData
from smmix_pl.data.base import Images, Split
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError
from smmix_pl.module import Batch
from smmix_pl.step_timer import synchronized_time

WARMUP = 3
OVERRIDES = {
    "data": f"{__name__}.RandomImages",
    "data.download": "false",
    "trainer.devices": "1",
    "trainer.num_nodes": "1",
    "trainer.strategy": "auto",
    "trainer.accumulate_grad_batches": "1",
    "trainer.limit_train_batches": "1.0",
    "trainer.limit_val_batches": "0",
    "trainer.fast_dev_run": "false",
    "trainer.logger": "false",
    "trainer.enable_checkpointing": "false",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
}
"""One device, and nothing written."""
PART_OF_THE_STEP = ("EMA",)
"""Callbacks of a recipe whose cost belongs to the training step."""


class RandomImages(ImageData):
    """One batch of random images in memory, repeated.

    Args:
        classes: Number of classes.
        batches: Batches per epoch.
        **settings: Arguments of `ImageData`.
    """

    def __init__(self, classes: int = 1000, batches: int = 1, **settings: Any) -> None:
        self.classes = classes
        self.batches = batches
        super().__init__(**settings)

    def find_classes(self) -> list[str]:
        """Return the class indices as names."""
        return [str(number) for number in range(self.classes)]

    def images(self, split: Split, transform: Transform) -> Images:
        """Reject the use for anything but planning.

        Raises:
            InputError: Always.
        """
        raise InputError("RandomImages has no splits. Use it with `smmix plan` only.")

    def setup(self, stage: str) -> None:
        """Open nothing."""

    def train_dataloader(self) -> Any:
        """Return a loader of the same 8-bit batch at each step."""
        pixels = torch.randint(256, (self.batch_size, 3, *self.image_size), dtype=torch.uint8)
        batch = pixels, torch.randint(self.num_classes, (self.batch_size,))
        return DataLoader(cast(Images, [batch] * self.batches), batch_size=None)


class StepTimes(Callback):
    """Times each step from idle device to idle device, grouped by the branch that mixed it."""

    def __init__(self) -> None:
        self.seconds: dict[float | None, list[float]] = {}
        self._branches: set[float | None] = set()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._start = synchronized_time(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Store the time of a step that is not a warm-up."""
        seconds = synchronized_time(pl_module.device) - self._start
        branch = outputs["notes"].get("branch")
        may_compile = branch not in self._branches
        self._branches.add(branch)
        if batch_idx >= WARMUP and not may_compile:
            self.seconds.setdefault(branch, []).append(seconds)


class PlanCLI(SMMixCLI):
    """The command line of `fit` without subcommands, plus the options of `smmix plan`.

    Args:
        words: Options.
        description: Help text of the command.

    Attributes:
        times: Times of the steps.
    """

    def __init__(self, words: Sequence[str], description: str) -> None:
        self.times = StepTimes()
        super().__init__(
            **cli_options() | {"trainer_defaults": {"callbacks": [self.times]}},
            run=False,
            save_config_callback=None,
            parser_kwargs={
                "prog": "smmix plan",
                "description": description,
                "default_config_files": default_configs(),
            },
            args=resolve_configs(list(words)),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of `smmix plan`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--images", type=int, default=1281167, help="Training images.")
        parser.add_argument("--classes", type=int, default=1000, help="Classes of the dataset.")
        parser.add_argument("--devices", type=int, default=8, help="Devices per machine.")
        parser.add_argument("--nodes", type=int, default=1, help="Machines.")
        parser.add_argument("--steps", type=int, default=12, help="Steps to time.")

    def before_instantiate_classes(self) -> None:
        """Remove callbacks, except those that are part of the step."""
        trainer = self.config.trainer
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise InputError(
                f"trainer.max_epochs={trainer.max_epochs}: a plan needs the number of epochs. "
                "Set it."
            )
        trainer.callbacks = [
            callback
            for callback in trainer.callbacks or []
            if callback.class_path.rpartition(".")[2] in PART_OF_THE_STEP
        ]
        super().before_instantiate_classes()


def profile_steps(words: Sequence[str], description: str, classes: int, steps: int) -> PlanCLI:
    """Run the warm-up steps and the timed steps of a recipe.

    Args:
        words: Options of `smmix fit` and `smmix plan`.
        description: Help text of the command.
        classes: Number of classes.
        steps: Number of timed steps.

    Returns:
        The command line with everything that it built, and the times.

    Raises:
        InputError: The options are invalid, or the batch does not fit on the device.
    """
    batches = str(WARMUP + steps)
    overrides = OVERRIDES | {"data.classes": str(classes), "data.batches": batches}
    overrides["trainer.max_steps"] = batches
    flags = [f"--{name}={value}" for name, value in overrides.items()]
    cli = PlanCLI([*words, *flags], description)
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"data.batch_size={cli.datamodule.batch_size}: does not fit on the device. Reduce it "
            "and raise trainer.accumulate_grad_batches to keep the global batch size."
        ) from error
    return cli
