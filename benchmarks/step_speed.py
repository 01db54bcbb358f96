"""How long does a training step take with each way of mixing? Prints a Markdown table.

    python benchmarks/step_speed.py [MODEL ...] [--precision bf16] [--compile] [--batch 4]
        [--rounds 5] [--reference PATH]

A step is mixing (for SMMix with its guide pass), forward, losses, backward, and AdamW, on a batch
that is already on the device. All variants take turns in one process. The table gives medians
(range) over the rounds, and the median ratio to CutMix within a round. "SMMix as trained" is the
mean of one SMMix and one Mixup step, because the recipe draws each with probability 0.5. Peak
memory is that of the GPU, with weights, gradients, and optimizer state. With `--compile`, the first
row is the sum of the first SMMix and the first Mixup step, in which torch compiles both passes; set
TORCHINDUCTOR_CACHE_DIR to an empty folder, because torch reuses what it compiled earlier.

PATH is a clone of github.com/ChenMnZ/SMMix. The authors' code then takes turns with ours on the
same machine, model, and batch, in a process of its own (benchmarks/authors_step.py). It supports
DeiT and PVT.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from authors_step import Reference
from timing import (
    RECIPE_ARGS,
    Clocked,
    Steps,
    add_options,
    build_module,
    conditions,
    interleave,
    median_ratio,
    milliseconds,
    table,
)

from smmix_pl import CutMix, Mixer, Mixup, NoMix, SMMix

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "pvt_tiny", "cait_xxs24_224")
VARIANTS: dict[str, tuple[Mixer, ...]] = {
    "none": (NoMix(),),
    "Mixup": (Mixup(),),
    "CutMix": (CutMix(),),
    "SMMix branch": (SMMix(switch_prob=1),),
    "SMMix as trained": (SMMix(switch_prob=1), SMMix(switch_prob=0)),
}


def main() -> None:
    """Print the table, the rows of a model as soon as they are measured."""
    options = parse()
    print(conditions(options) + (", compiled\n" if options.compile else "\n"))
    print(*table("model", "mixing", "step (ms)", "/ CutMix", "images/s", "peak MiB"), sep="\n")
    for name in options.models:
        print(*rows(name, options), sep="\n", flush=True)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="clone of the authors' code")
    add_options(parser, batch=4, rounds=5)
    return parser.parse_args()


def rows(name: str, options: argparse.Namespace) -> Iterator[str]:
    """Yield the table rows of one model."""
    module = build_module(
        name, options, SMMix(), backbone_args=RECIPE_ARGS, compile=options.compile
    )
    steps = Steps(module, options.batch, options.device, options.precision)
    actions = {variant: steps.clocked(*mixers) for variant, mixers in VARIANTS.items()}
    if options.compile:
        yield f"| {name} | first two steps | {2000 * actions['SMMix as trained']():.0f} | | | |"
    memory = {variant: peak_memory(action, options.device) for variant, action in actions.items()}
    with Reference(options.reference, name, options) as reference:
        times = interleave(actions | reference.actions(), options.rounds, warmup=2)
    for variant, seconds in times.items():
        yield (
            f"| {name} | {variant} | {milliseconds(seconds)} "
            f"| {median_ratio(seconds, times['CutMix']):.3f} "
            f"| {options.batch / statistics.median(seconds):.1f} | {memory.get(variant, '')} |"
        )


def peak_memory(action: Clocked, device: str) -> str:
    """Return the peak GPU memory of one run of the action in MiB, or an empty string on a CPU."""
    if not device.startswith("cuda"):
        return ""
    action()  # creates the optimizer state
    torch.cuda.reset_peak_memory_stats(device)
    action()
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


if __name__ == "__main__":
    main()
