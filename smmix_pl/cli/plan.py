"""How long a recipe will take: a few of its real training steps on this machine, and arithmetic.

    python -m smmix_pl.cli.plan --config deit_t.yaml [--config ...] [--images 1281167] [--devices 8]

Configs and further flags are those of `lightning fit`. Needs no data: the images are random.
"""

import argparse
import logging
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smmix_pl.callbacks.training.throughput import GIB, peak_memory
from smmix_pl.checks import in_range
from smmix_pl.cli.input_errors import WordsParser, report_input_errors
from smmix_pl.cli.step_profiler import profile_steps
from smmix_pl.cli.trusted_packages import restrict_imports
from smmix_pl.errors import InputError
from smmix_pl.step_timer import device_name


@dataclass(frozen=True)
class Plan:
    """What a recipe takes.

    Attributes:
        seconds: Of one step on one device.
        batch: Images of one device and step.
        images: Training images.
        epochs: How often each is seen.
        devices: Over all machines; each is assumed as fast as one alone.
    """

    seconds: float
    batch: int
    images: int
    epochs: int
    devices: int

    @property
    def steps(self) -> int:
        """In an epoch; a last batch that is not full is left out, as in training."""
        return self.images // (self.batch * self.devices)

    @property
    def images_per_second(self) -> float:
        """Over all devices."""
        return self.batch * self.devices / self.seconds

    @property
    def hours(self) -> float:
        """Of all epochs."""
        return self.epochs * self.steps * self.seconds / 3600

    @property
    def device_hours(self) -> float:
        """Hours times devices."""
        return self.hours * self.devices


def main(words: Sequence[str] | None = None) -> None:
    """Print the plan; bad input is told in one sentence on stderr, with exit status 2."""
    parser = WordsParser(
        prog="python -m smmix_pl.cli.plan", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", type=int, default=1281167, help="in the training set")
    parser.add_argument("--classes", type=int, default=1000, help="of the data set")
    parser.add_argument("--devices", type=int, default=8, help="of each machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--steps", type=int, default=12, help="to time")
    with report_input_errors():
        restrict_imports()
        for part in ("pytorch", "fabric"):
            logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        options, recipe = parser.parse_known_args(words)
        print(told(options, recipe))


def told(options: argparse.Namespace, recipe: Sequence[str]) -> str:
    """The plan in words.

    Args:
        options: The command's own.
        recipe: Words of ``lightning fit``.

    Raises:
        InputError: A number is out of range, there is no recipe, or too few images for one step.
    """
    for name in ("images", "devices", "nodes", "steps"):
        in_range(f"--{name}", getattr(options, name), 1)
    in_range("--classes", options.classes, 2, 10**6)
    if not any(word.partition("=")[0] in ("--config", "-c") for word in recipe):
        raise InputError("no recipe is named; give --config, such as --config deit_t.yaml")
    stopwatch, cli = profile_steps(recipe, options.classes, options.steps)
    module, trainer, data = cli.model, cli.trainer, cli.datamodule
    assert trainer.max_epochs is not None, "a recipe without is refused"
    share = getattr(module.mixer, "switch_prob", 1.0)
    plan = Plan(
        expected_seconds(stopwatch.seconds, share),
        data.batch_size,
        options.images,
        trainer.max_epochs,
        options.devices * options.nodes,
    )
    if not plan.steps:
        raise InputError(
            f"one step takes {plan.batch} images on each of {plan.devices} devices, and --images "
            f"is {plan.images}; lower data.batch_size or --devices"
        )
    height, width = data.image_size
    device = trainer.strategy.root_device
    lines = {
        "recipe": f"{module.hparams['backbone']}, {type(module.mixer).__name__}, {height} x "
        f"{width} pixels, {trainer.precision}, {plan.batch} images a device and step",
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
            f"For {plan.epochs} epochs of {plan.images} images on {plan.devices} devices, assumed "
            f"{plan.devices} times as fast as one.",
            "Data loading, validation and checkpoints are not counted.",
        ]
    )


def expected_seconds(seconds: Mapping[float | None, Sequence[float]], share: float) -> float:
    """Mean seconds of a step, expected over the branches of the mixer.

    Not the median: with ``guide_prob`` the steps of one branch are of two kinds.

    Args:
        seconds: Of the steps that were timed, by branch: 1 for the mixer's own, 0 for the other,
            None for all steps of a mixer without branches.
        share: Of steps that take branch 1 in the long run.

    Raises:
        InputError: Only one branch of two was timed.
    """
    shares = {1.0: share, 0.0: 1 - share, None: 1.0}
    missing = [branch for branch in (0.0, 1.0) if shares[branch] and branch not in seconds]
    if None not in seconds and missing:
        raise InputError("the steps that were timed met one of the mixer's branches; raise --steps")
    return sum(shares[branch] * statistics.fmean(times) for branch, times in seconds.items())


if __name__ == "__main__":
    main()
