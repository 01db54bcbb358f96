"""How long a recipe will take: steps measured here, hours told for the whole of it.

    python -m smmix_pl.plan --config deit_t.yaml --devices 8

Trains for some steps on random images, with the recipe's model, mixer, precision and batch, through
Lightning as `lightning fit` does. Loading of data is left out, and the time is taken to fall with
the number of devices as 1/n: both are what a well-fed machine comes near to.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smmix_pl.callbacks.throughput import GIB, peak_memory
from smmix_pl.checks import in_range
from smmix_pl.cli import FROM_DATA, Parser, resolve_configs
from smmix_pl.commands import one_sentence
from smmix_pl.data import ImageData
from smmix_pl.errors import InputError
from smmix_pl.module import SMMixModule
from smmix_pl.trust import only_named_packages

OTHERS = {"ImageNet": 1_281_167}
"""Training images of sets that people also use in parts, so that their check counts nothing."""
WARMUP = 3
"""Steps that are not counted."""


class RandomBatches(Dataset[tuple[Tensor, Tensor]]):
    """One random batch, again and again.

    Args:
        batch: Images in it.
        size: (H, W) in pixels.
        classes: K.
        steps: How often.
    """

    def __init__(self, batch: int, size: tuple[int, int], classes: int, steps: int) -> None:
        self.batch = torch.randn(batch, 3, *size), torch.randint(classes, (batch,))
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= self.steps:
            raise IndexError(index)
        return self.batch


class OneBatch(LightningDataModule):
    """What a trainer is given in place of the data set."""

    def __init__(self, batches: RandomBatches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches as they are."""
        return DataLoader(self.batches, batch_size=None)


class StepTimes(Callback):
    """Seconds from one step's end to the next, on the device."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin."""
        self._begin = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's time, if it is none of the first."""
        if batch_idx >= WARMUP:
            self.seconds.append(_now(pl_module.device) - self._begin)


@dataclass(frozen=True)
class Plan:
    """What a recipe takes.

    Attributes:
        images: In one epoch.
        epochs: Of the recipe.
        devices: Over all nodes.
        images_per_second: Of one device.
    """

    images: int
    epochs: int
    devices: int
    images_per_second: float

    @property
    def device_hours(self) -> float:
        """Summed over devices."""
        return self.images * self.epochs / self.images_per_second / 3600

    @property
    def hours(self) -> float:
        """On the clock."""
        return self.device_hours / self.devices


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    with one_sentence():
        only_named_packages()
        config, objects = parse(resolve_configs(list(sys.argv[1:] if words is None else words)))
        model, data = config.model, config.data.init_args
        images = config.images or known_images(config.data.class_path)
        epochs = config.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise InputError("trainer.max_epochs is not set; a plan needs the recipe's epochs")
        for name in ("devices", "nodes", "steps", "classes"):
            in_range(f"--{name}", config[name], 1)
        in_range("--images", images, 1)
        size = data.image_size
        height, width = (size, size) if isinstance(size, int) else size
        seconds, memory, device = measure(
            objects.model, config.trainer, data.batch_size, (height, width), config
        )
        mean = statistics.mean(seconds)
        plan = Plan(images, epochs, config.devices * config.nodes, data.batch_size / mean)
        mixer = model.mixer.class_path.split(".")[-1]
        print(
            f"{model.backbone} with {mixer}, {data.batch_size} images of {height} x {width} a "
            f"step, {config.trainer.precision or '32-true'}, on {device}:\n"
            f"{mean:.3f} s a step, mean of {len(seconds)} ({min(seconds):.3f} to "
            f"{max(seconds):.3f}); {plan.images_per_second:.1f} images/s; peak {memory:.2f} GiB\n"
            f"{epochs} epochs of {images} images on {plan.devices} such devices: {plan.hours:.1f} "
            f"hours, {plan.device_hours:.1f} device-hours, without validation, if data loading "
            "keeps up"
        )


def parse(words: Sequence[str]) -> tuple[Any, Any]:
    """The recipe, as config and with the model's objects built; neither data nor trainer are."""
    parser = Parser(prog="python -m smmix_pl.plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", action="config", help="a recipe; several overlay each other")
    parser.add_class_arguments(SMMixModule, "model", skip=set(FROM_DATA), instantiate=False)
    parser.set_defaults({"model.mixer": {"class_path": "smmix_pl.SMMix"}})
    parser.add_subclass_arguments(ImageData, "data", instantiate=False)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False)
    for name in ("seed_everything", "test_after_fit", "finite"):  # of the recipes; no matter here
        parser.add_argument(f"--{name}", type=Any, default=None, help="not used")
    parser.add_argument("--images", type=int, default=None, help="in an epoch, if not known")
    parser.add_argument("--classes", type=int, default=1000, help="of the class head")
    parser.add_argument("--devices", type=int, default=1, help="a node")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--steps", type=int, default=20, help="to measure")
    config = parser.parse_args(list(words))
    if config.data is None:
        raise InputError("no recipe is given; --config deit_t.yaml names one")
    config.trainer.callbacks = config.trainer.logger = None  # nothing is to be written
    return config, parser.instantiate(config)


def known_images(class_path: str) -> int:
    """Training images of a data set whose owner counts them.

    Raises:
        InputError: Nobody does.
    """
    name = class_path.split(".")[-1]
    known = {cls.__name__: cls.sizes for cls in _subclasses(ImageData)}  # type: ignore[type-abstract]
    sizes = known.get(name)
    images = sizes.train if sizes else OTHERS.get(name, 0)
    if not images:
        raise InputError(f"the number of training images of {name} is not known; give --images")
    return images


def measure(
    settings: Any, trainer: Any, batch: int, size: tuple[int, int], options: Any
) -> tuple[list[float], float, str]:
    """Seconds of each step, peak memory in GiB, and the device's name."""
    model = SMMixModule(options.classes, size, batch, **settings)
    times = StepTimes()
    run = Trainer(
        accelerator=trainer.accelerator,
        devices=1,
        precision=trainer.precision,
        gradient_clip_val=trainer.gradient_clip_val,
        max_steps=WARMUP + options.steps,
        logger=False,
        callbacks=[times],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    batches = RandomBatches(batch, size, options.classes, WARMUP + options.steps)
    run.fit(model, OneBatch(batches))
    device = run.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    return times.seconds, peak_memory(device) / GIB, name


def _subclasses(cls: type[ImageData]) -> set[type[ImageData]]:
    return set(cls.__subclasses__()).union(*map(_subclasses, cls.__subclasses__()))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
