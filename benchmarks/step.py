"""What does a training step cost, for each way to mix? Prints a Markdown table.

python benchmarks/step.py [MODEL ...] [--precision bf16] [--compile] [--batch 4] [--rounds 5]
    [--device auto] [--reference PATH]

A step: the batch is on the device; mixing (with SMMix's motivating pass), forward, losses,
backward, AdamW. All ways take turns in one process; medians (lowest to highest) of the rounds, and
the median of the ratio to the same round's CutMix. "SMMix, as trained" is the mean of one SMMix
step and one Mixup step: the recipe draws one of them for each batch, with equal chances. Peak
memory is the device's, weights, gradients and optimizer state included.

PATH is a clone of github.com/ChenMnZ/SMMix: the authors' code then takes its turns on the same
machine, model and batch, in a process of its own (benchmarks/reference.py). It has DeiT and PVT.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from reference import Reference
from timing import (
    CLASSES,
    Clocked,
    Steps,
    interleave,
    median_and_spread,
    table,
    versions,
)

from smmix_pl import CutMix, Mixer, Mixup, NoMix, SMMix, SMMixModule
from smmix_pl.step_timer import device_name

SIZE = (224, 224)
MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "pvt_tiny", "cait_xxs24_224")
WAYS: dict[str, tuple[Mixer, ...]] = {
    "none": (NoMix(),),
    "Mixup": (Mixup(),),
    "CutMix": (CutMix(),),
    "SMMix, its branch": (SMMix(switch_prob=1),),
    "SMMix, as trained": (SMMix(switch_prob=1), SMMix(switch_prob=0)),
}


def main() -> None:
    """Print the table, a model's rows as soon as they are measured."""
    options = parse()
    compiled = ", compiled" if options.compile else ""
    print(f"{device_name(torch.device(options.device))}; {versions()};", end=" ")
    print(f"{options.precision}{compiled}; batch {options.batch}, {options.rounds} rounds\n")
    print(*table("model", "mixing", "step (ms)", "/ CutMix", "images/s", "peak MiB"), sep="\n")
    for name in options.models:
        print(*rows(name, options), sep="\n", flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--reference", type=Path, metavar="PATH")
    return parser.parse_args()


def rows(name: str, options: argparse.Namespace) -> Iterator[str]:
    """A model's part of the table."""
    torch.manual_seed(0)
    module = SMMixModule(
        CLASSES,
        SIZE,
        options.batch,
        SMMix(),
        backbone=name,
        backbone_args={"drop_path_rate": 0.1},
        compile=options.compile,
    )
    steps = Steps(
        module.to(options.device).train(), options.batch, options.device, options.precision
    )
    actions = {way: steps.clocked(*mixers) for way, mixers in WAYS.items()}
    memory = {way: peak_memory(action, options.device) for way, action in actions.items()}
    with Reference(options.reference, name, options) as reference:
        times = interleave(actions | reference.actions(), options.rounds, warmup=2)
    for way, seconds in times.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(seconds, times["CutMix"], strict=True))
        yield (
            f"| {name} | {way} | {median_and_spread(seconds)} | {ratio:.3f} "
            f"| {options.batch / middle:.1f} | {memory.get(way, '')} |"
        )


def peak_memory(action: Clocked, device: str) -> str:
    """MiB that one run of the action takes on the device at most."""
    if not device.startswith("cuda"):
        return ""
    action()  # the optimizer's state exists from here on
    torch.cuda.reset_peak_memory_stats(device)
    action()
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


if __name__ == "__main__":
    main()
