"""How the benchmarks take time: whole training steps, several ways in turn, medians and spread."""

import statistics
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import timm
import torch
from torch import Tensor

from smmix_pl import Mixer, SMMixModule
from smmix_pl.losses import weighted_sum
from smmix_pl.mixing import soft_labels
from smmix_pl.optim import create_optimizer
from smmix_pl.step_timer import synchronized_time

CLASSES = 1000
Clocked = Callable[[], float]
"""Does something once and gives the seconds that it took."""


def versions() -> str:
    """What the numbers were taken with."""
    return f"torch {torch.__version__}, timm {timm.__version__}"


def autocast(device: str, precision: str) -> torch.autocast:
    """The training autocast of a precision, ``float32`` or ``bf16``."""
    return torch.autocast(
        torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16"
    )


def clocked(action: Callable[[], object], device: str) -> Clocked:
    """The action, timed from an idle device to an idle device."""

    def run() -> float:
        start = synchronized_time(torch.device(device))
        action()
        return synchronized_time(torch.device(device)) - start

    return run


def interleave(
    actions: Mapping[str, Clocked], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each action in each round, all in turn, so that a slow minute meets them all.

    Args:
        actions: By name.
        rounds: How often each is timed.
        warmup: Rounds before those, which are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(warmup + rounds):
        for name, action in actions.items():
            times[name].append(action())
    return {name: values[warmup:] for name, values in times.items()}


def median_and_spread(seconds: list[float]) -> str:
    """In milliseconds: median (lowest to highest)."""
    low, middle, high = (
        1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds))
    )
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


class Steps:
    """Training steps of one model on one batch that is on the device: mixing to optimizer step.

    Args:
        module: On the device, in train mode; its own mixer is not used.
        batch: Images in it.
        device: Where it runs.
        precision: ``float32`` or ``bf16``, under autocast.
    """

    def __init__(self, module: SMMixModule, batch: int, device: str, precision: str) -> None:
        self.module = module
        self.device, self.precision = device, precision
        size = module.hparams["image_size"]
        self.images = torch.randn(batch, 3, *size, device=device)
        self.classes = torch.randint(module.num_classes, (batch,), device=device)
        self.optimizer = create_optimizer(module.backbone, module.optim, lr=1e-5)
        self.rng = np.random.default_rng(0)

    def labels(self) -> Tensor:
        """Soft labels of the batch."""
        return soft_labels(self.classes, self.module.num_classes, 0.1)

    def step(self, mixer: Mixer) -> None:
        """One whole step."""
        self.optimizer.zero_grad()
        with autocast(self.device, self.precision):
            with torch.no_grad():
                mixed = mixer(self.images, self.labels(), self.module.backbone, self.rng)
            loss = weighted_sum(self.module.losses(mixed), self.module.loss_weights)
        loss.backward()
        self.optimizer.step()

    def clocked(self, *mixers: Mixer) -> Clocked:
        """Seconds a step, the mean of one step with each mixer."""
        runs = [clocked(lambda mixer=mixer: self.step(mixer), self.device) for mixer in mixers]
        return lambda: statistics.mean(run() for run in runs)


def table(*header: str) -> Iterator[str]:
    """The first two lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
