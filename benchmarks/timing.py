"""Timing shared by the benchmark programs: training steps, alternating rounds, medians.

Shapes: B batch, H W pixels.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from smmix_pl import Mixer, SMMixModule
from smmix_pl.mixing import soft_labels
from smmix_pl.optim import create_optimizer
from smmix_pl.step_timer import device_name, synchronized_time

CLASSES = 1000
SIZE = (224, 224)
SMOOTHING = 0.1
RECIPE_ARGS = {"drop_path_rate": 0.1}
"""Backbone arguments of the ImageNet recipe."""
Clocked = Callable[[], float]
"""An action that runs once and returns what was measured, such as its duration in seconds."""


def add_options(
    parser: argparse.ArgumentParser, batch: int, rounds: int, precision: bool = True
) -> None:
    """Add the options that most benchmark programs share.

    Args:
        parser: Parser of the program.
        batch: Default batch size.
        rounds: Default number of rounds.
        precision: Also add `--precision`.
    """
    parser.add_argument("--batch", type=int, default=batch, help="images per batch")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds to measure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    if precision:
        parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")


def conditions(options: argparse.Namespace) -> str:
    """Return the device, versions, and options that a table was measured with."""
    return (
        f"{device_name(torch.device(options.device))}; torch {torch.__version__}, timm "
        f"{timm.__version__}; {options.precision}; batch {options.batch}, {options.rounds} rounds"
    )


def table(*header: str) -> Iterator[str]:
    """Yield the header lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)


def autocast(device: str, precision: str) -> torch.autocast:
    """Return the training autocast of a precision, `float32`, `bf16`, or `fp16`."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=precision != "float32")


def clocked(action: Callable[[], object], device: str, cpu_time: bool = False) -> Clocked:
    """Return the action, timed from an idle device to an idle device, or by its CPU time."""

    def now() -> float:
        return time.process_time() if cpu_time else synchronized_time(torch.device(device))

    def run() -> float:
        start = now()
        action()
        return now() - start

    return run


def interleave(
    actions: Mapping[str, Clocked], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Run all actions in turn, so that a slow minute affects all of them.

    Args:
        actions: Actions by name.
        rounds: Number of rounds to measure.
        warmup: Number of rounds before them that are not counted.

    Returns:
        Measured values of each action, one per round.
    """
    values: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(warmup + rounds):
        for name, action in actions.items():
            values[name].append(action())
    return {name: measured[warmup:] for name, measured in values.items()}


def median_ratio(values: list[float], baseline: list[float]) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(values, baseline, strict=True))


def median_and_range(values: list[float], digits: int = 1) -> str:
    """Return the median and, in parentheses, the lowest and highest value."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def milliseconds(seconds: list[float]) -> str:
    """Return the median and range in milliseconds."""
    return median_and_range([1000 * value for value in seconds])


def build_module(
    backbone: str, options: argparse.Namespace, mixer: Mixer, **settings: Any
) -> SMMixModule:
    """Return a module for ImageNet-1k on the device, in train mode, with seeded weights.

    Args:
        backbone: Name of the timm model.
        options: Parsed options with `batch` and `device`.
        mixer: Mixer of the module.
        **settings: Further arguments of `SMMixModule`.
    """
    torch.manual_seed(0)
    module = SMMixModule(CLASSES, SIZE, options.batch, mixer, backbone=backbone, **settings)
    return module.to(options.device).train()


def train_step(
    module: SMMixModule,
    optimizer: torch.optim.Optimizer,
    mixer: Mixer,
    images: Tensor,
    classes: Tensor,
    rng: np.random.Generator,
    precision: torch.autocast,
) -> None:
    """Mix a batch and train on it: forward pass, losses, backward pass, optimizer step.

    Args:
        module: Module in train mode. Its own mixer is not used.
        optimizer: Optimizer of its weights.
        mixer: Mixer of this step.
        images: Normalized images on the device, `(B, 3, H, W)`.
        classes: Class indices, `(B,)`.
        rng: Generator of the mixer.
        precision: Autocast of mixing and forward pass.
    """
    optimizer.zero_grad()
    with precision:
        loss = training_loss(module, mixer, images, classes, rng)
    loss.backward()
    optimizer.step()


def training_loss(
    module: SMMixModule, mixer: Mixer, images: Tensor, classes: Tensor, rng: np.random.Generator
) -> Tensor:
    """Mix a batch and return its loss. Arguments: see `train_step`."""
    with torch.no_grad():
        labels = soft_labels(classes, module.num_classes, SMOOTHING)
        mixed = mixer(images, labels, module.guide_model, rng)
    return module.criterion(mixed)


class Steps:
    """Training steps of one model on one batch that is already on the device.

    Args:
        module: Module on the device, in train mode. Its own mixer is not used.
        batch: Number of images.
        device: Device of the module.
        precision: `float32` or `bf16`, under autocast.
    """

    def __init__(self, module: SMMixModule, batch: int, device: str, precision: str) -> None:
        self.module = module
        self.device, self.precision = device, precision
        size = module.hparams["image_size"]
        self.images = torch.randn(batch, 3, *size, device=device)
        self.classes = torch.randint(module.num_classes, (batch,), device=device)
        self.optimizer = create_optimizer(module.backbone, module.optim, lr=1e-5)
        self.rng = np.random.default_rng(0)

    def step(self, mixer: Mixer) -> None:
        """Run one complete step."""
        train_step(
            self.module,
            self.optimizer,
            mixer,
            self.images,
            self.classes,
            self.rng,
            autocast(self.device, self.precision),
        )

    def clocked(self, *mixers: Mixer) -> Clocked:
        """Return an action that measures seconds per step, as the mean over the mixers."""
        runs = [clocked(lambda mixer=mixer: self.step(mixer), self.device) for mixer in mixers]
        return lambda: statistics.mean(run() for run in runs)
