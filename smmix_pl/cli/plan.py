"""`smmix plan`: how long a recipe will take, from a few of its real training steps."""

import argparse
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smmix_pl.checks import in_range
from smmix_pl.cli.trusted_packages import restrict_imports
from smmix_pl.errors import InputError

DESCRIPTION = """Estimate the time and memory of a recipe from a few of its training steps on this
machine. Takes the options of `smmix fit`, and needs no data, because the images are random.
Example: smmix plan --config deit_t.yaml --devices 8 --data.batch_size 128"""


@dataclass(frozen=True)
class Plan:
    """Cost of a recipe.

    Attributes:
        seconds: Time of one step on one device.
        batch: Images per device and step.
        images: Training images.
        epochs: Number of epochs.
        devices: Devices over all machines, each assumed to be as fast as one alone.
    """

    seconds: float
    batch: int
    images: int
    epochs: int
    devices: int

    @property
    def steps(self) -> int:
        """Steps per epoch; an incomplete last batch is dropped, as in training."""
        return self.images // (self.batch * self.devices)

    @property
    def images_per_second(self) -> float:
        """Throughput over all devices."""
        return self.batch * self.devices / self.seconds

    @property
    def hours(self) -> float:
        """Time of all epochs."""
        return self.epochs * self.steps * self.seconds / 3600

    @property
    def device_hours(self) -> float:
        """Hours times devices."""
        return self.hours * self.devices


def main(words: Sequence[str]) -> None:
    """Print the plan.

    Args:
        words: Words of the command line after the command.
    """
    restrict_imports()
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    has_help = not {"-h", "--help"}.isdisjoint(words)
    has_recipe = any(word.partition("=")[0] in ("--config", "-c") for word in words)
    if not has_recipe and not has_help:
        raise InputError("--config: no recipe is named. Pass one, such as --config deit_t.yaml.")
    print(plan_text(words))


def plan_text(words: Sequence[str]) -> str:
    """Return the plan as text.

    Args:
        words: Options of `smmix plan`.

    Raises:
        InputError: An option is out of range, or the dataset has too few images for one step.
    """
    options = _own_options(words)
    for name in ("images", "devices", "nodes", "steps"):
        in_range(f"--{name}", getattr(options, name), 1)
    in_range("--classes", options.classes, 2, 10**6)
    from smmix_pl.callbacks.training.throughput import GIB, peak_memory
    from smmix_pl.cli.step_profiler import profile_steps
    from smmix_pl.step_timer import device_name

    print(f"Timing {options.steps} training steps on this machine.", file=sys.stderr, flush=True)
    cli = profile_steps(words, DESCRIPTION, options.classes, options.steps)
    module, trainer, data = cli.model, cli.trainer, cli.datamodule
    assert trainer.max_epochs is not None, "PlanCLI rejects a recipe without it"
    switch_prob = getattr(module.mixer, "switch_prob", 1.0)
    plan = Plan(
        expected_seconds(cli.times.seconds, switch_prob),
        data.batch_size,
        options.images,
        trainer.max_epochs,
        options.devices * options.nodes,
    )
    if not plan.steps:
        raise InputError(
            f"--images={plan.images}: fewer than one step of {plan.batch} images on each of "
            f"{plan.devices} devices. Reduce data.batch_size or --devices."
        )
    height, width = data.image_size
    device = trainer.strategy.root_device
    lines = {
        "recipe": f"{module.hparams['backbone']}, {type(module.mixer).__name__}, {height} x "
        f"{width} pixels, {trainer.precision}, {plan.batch} images per device and step",
        "measured on": f"{device_name(device)}, {options.steps} steps",
        "seconds per step": f"{plan.seconds:.4g}",
        "images per second": f"{plan.images_per_second:.4g}",
        "hours": f"{plan.hours:.4g}",
        "device-hours": f"{plan.device_hours:.4g}",
    }
    if device.type == "cuda":
        lines["peak memory"] = f"{peak_memory(device) / GIB:.3g} GiB"
    return "\n".join(
        [
            *(f"{name:<18} {value}" for name, value in lines.items()),
            f"For {plan.epochs} epochs of {plan.images} images on {plan.devices} devices, assuming "
            f"that they are {plan.devices} times as fast as one.",
            "Data loading, validation, and checkpoints are not included.",
        ]
    )


def expected_seconds(seconds: Mapping[float | None, Sequence[float]], switch_prob: float) -> float:
    """Return the expected time of a step, over the branches of the mixer.

    Means, not medians: with `guide_prob`, the steps of one branch are of two kinds.

    Args:
        seconds: Times of steps by branch: 1 for the mixer's own, 0 for the other, and None for a
            mixer without branches.
        switch_prob: Probability of branch 1.

    Raises:
        InputError: Only one of two branches was timed.
    """
    weights = {1.0: switch_prob, 0.0: 1 - switch_prob, None: 1.0}
    missing = [branch for branch in (0.0, 1.0) if weights[branch] and branch not in seconds]
    if None not in seconds and missing:
        raise InputError("--steps: only one branch of the mixer was timed. Raise --steps.")
    return sum(weights[branch] * statistics.fmean(times) for branch, times in seconds.items())


def _own_options(words: Sequence[str]) -> argparse.Namespace:
    """Read the options of the plan itself, which are needed before the recipe is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in (("images", 1281167), ("classes", 1000), ("devices", 8), ("nodes", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=12)
    try:
        return parser.parse_known_args(list(words))[0]
    except argparse.ArgumentError as error:
        raise InputError(
            f"{error.argument_name}: {error.message}. Run `smmix plan --help`."
        ) from error
