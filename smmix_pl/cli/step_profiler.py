"""A few real training steps of a recipe, on random images and without what it does beside them."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from smmix_pl.cli.main import Parser, SMMixCLI, resolve_configs
from smmix_pl.data import ImageData
from smmix_pl.data.datamodule import Images, Split
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError
from smmix_pl.module import Batch, SMMixModule
from smmix_pl.step_timer import synchronized_time

WARMUP = 3
BARE = {
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
    "test_after_fit": "false",
    "ckpt_path": "null",
}
"""One device, and nothing written."""
AT_EACH_STEP = ("EMA",)
"""Callbacks of a recipe that are a part of its step."""


class RandomImages(ImageData):
    """One batch of random images in memory, again and again.

    Args:
        classes: Their number.
        batches: In an epoch.
        **settings: As of `ImageData`.
    """

    def __init__(self, classes: int = 1000, batches: int = 1, **settings: Any) -> None:
        self.class_names = [str(number) for number in range(classes)]
        self.batches = batches
        super().__init__(**settings)

    def find_classes(self) -> list[str]:
        """Their numbers."""
        return self.class_names

    def images(self, split: Split, transform: Transform) -> Images:
        """None that are stored.

        Raises:
            InputError: Always.
        """
        raise InputError("random images have no parts; they are for planning alone")

    def setup(self, stage: str) -> None:
        """Nothing is opened."""

    def train_dataloader(self) -> Any:
        """The same 8-bit batch at each step."""
        pixels = torch.randint(256, (self.batch_size, 3, *self.image_size), dtype=torch.uint8)
        batch = pixels, torch.randint(self.num_classes, (self.batch_size,))
        return DataLoader(cast(Images, [batch] * self.batches), batch_size=None)


class StepTimes(Callback):
    """Times steps from an idle device to an idle device, by the branch that mixed them, if any."""

    def __init__(self) -> None:
        self.seconds: dict[float | None, list[float]] = {}
        self.met: set[float | None] = set()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Begin."""
        self._begin = synchronized_time(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count a step that is not a warm-up."""
        seconds = synchronized_time(pl_module.device) - self._begin
        branch = trainer.callback_metrics.get("train/branch")
        key = None if branch is None else float(branch)
        first = key not in self.met  # may compile
        self.met.add(key)
        if batch_idx >= WARMUP and not first:
            self.seconds.setdefault(key, []).append(seconds)


class PlanCLI(SMMixCLI):
    """The command line of fit, less what a recipe does beside its steps."""

    def before_instantiate_classes(self) -> None:
        """Leave callbacks out, except those that are a part of the step."""
        trainer = self.config.fit.trainer
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise InputError("the recipe names no trainer.max_epochs to plan for; set it")
        trainer.callbacks = [
            callback
            for callback in trainer.callbacks or []
            if callback.class_path.rpartition(".")[2] in AT_EACH_STEP
        ]
        super().before_instantiate_classes()


def profile_steps(words: Sequence[str], classes: int, steps: int) -> tuple[StepTimes, PlanCLI]:
    """Run the steps.

    Args:
        words: Of ``lightning fit``.
        classes: Number of classes.
        steps: How many are timed; a few more come before.

    Returns:
        Their times, and what the words built.

    Raises:
        InputError: The words are wrong, or the batch does not fit the device.
    """
    stopwatch = StepTimes()
    batches = str(WARMUP + steps)
    last = BARE | {"data.classes": str(classes), "data.batches": batches}
    last["trainer.max_steps"] = batches
    flags = [f"--{name}={value}" for name, value in last.items()]
    try:
        cli = PlanCLI(
            SMMixModule,
            ImageData,
            subclass_mode_data=True,
            parser_class=Parser,
            save_config_callback=None,
            trainer_defaults={"callbacks": [stopwatch]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            args=["fit", *resolve_configs(list(words)), *flags],
        )
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the batch does not fit the device; lower data.batch_size, and raise "
            "trainer.accumulate_grad_batches to train by the same global batch"
        ) from error
    return stopwatch, cli
