"""How long does mixing alone take, as a fraction of a training step? Prints a Markdown table.

    python benchmarks/mixing_cost.py [--model deit_tiny_patch16_224] [--precision bf16] [--batch 4]
        [--rounds 5]

Mixing alone is the choice of regions, the paste, and the labels. The guide pass is excluded: the
mixer receives the result of an earlier one. The step is that of benchmarks/step_speed.py.
"""

import argparse
import statistics

import torch
from timing import (
    RECIPE_ARGS,
    SMOOTHING,
    Steps,
    add_options,
    autocast,
    build_module,
    clocked,
    conditions,
    interleave,
    milliseconds,
    table,
)
from torch import Tensor

from smmix_pl import CutMix, Mixer, Mixup, SMMix, soft_labels
from smmix_pl.mixing import Guide

MIXERS = {
    "Mixup": Mixup(),
    "CutMix": CutMix(),
    "SMMix branch": SMMix(switch_prob=1),
    "SMMix branch, per-sample sides": SMMix(switch_prob=1, per_sample_side=True),
}


class RecordedGuide:
    """Guide model that returns the result of an earlier guide pass.

    Args:
        grid: Token grid.
        guide: Result of the guide pass.
    """

    def __init__(self, grid: tuple[int, int], guide: Guide) -> None:
        self.grid = grid
        self._guide = guide

    def guide(self, images: Tensor) -> Guide:
        """Return the recorded result for any images."""
        return self._guide


def main() -> None:
    """Print the table."""
    options = parse()
    device = options.device
    module = build_module(options.model, options, SMMix(), backbone_args=RECIPE_ARGS)
    steps = Steps(module, options.batch, device, options.precision)
    with autocast(device, options.precision):
        model = RecordedGuide(module.backbone.grid, module.backbone.guide(steps.images))

    @torch.no_grad()
    def mix(mixer: Mixer) -> None:
        labels = soft_labels(steps.classes, module.num_classes, SMOOTHING)
        mixer(steps.images, labels, model, steps.rng)

    mixings = {
        f"{name}, mixing": clocked(lambda mixer=mixer: mix(mixer), device)
        for name, mixer in MIXERS.items()
    }
    complete = {f"{name}, step": steps.clocked(mixer) for name, mixer in MIXERS.items()}
    times = interleave(mixings | complete, options.rounds)
    print(f"{conditions(options)}; {options.model}\n")
    print(*table("mixing", "alone (ms)", "step (ms)", "fraction of the step"), sep="\n")
    for name in MIXERS:
        mixing, step = times[f"{name}, mixing"], times[f"{name}, step"]
        fraction = statistics.median(mixing) / statistics.median(step)
        print(f"| {name} | {milliseconds(mixing)} | {milliseconds(step)} | {fraction:.2%} |")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    add_options(parser, batch=4, rounds=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
