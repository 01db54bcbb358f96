"""What does the mixing alone cost, as a share of the training step? Prints a Markdown table.

python benchmarks/mixing.py [--model deit_tiny_patch16_224] [--precision bf16] [--batch 4]
    [--rounds 5] [--device auto]

Mixing alone: the choice of regions, the paste, the labels; the motivating pass is taken out by
answering with one that was run before. The step is that of benchmarks/step.py.
"""

import argparse
import statistics

import torch
from timing import (
    CLASSES,
    Steps,
    autocast,
    clocked,
    interleave,
    median_and_spread,
    table,
    versions,
)
from torch import Tensor

from smmix_pl import CutMix, Mixer, Mixup, SMMix, SMMixModule
from smmix_pl.mixing import Guide
from smmix_pl.step_timer import device_name

SIZE = (224, 224)
MIXERS = {
    "Mixup": Mixup(),
    "CutMix": CutMix(),
    "SMMix, its branch": SMMix(switch_prob=1),
    "SMMix, a side for each image": SMMix(switch_prob=1, per_sample_side=True),
}


class Motivated:
    """A model whose motivating pass has been run."""

    def __init__(self, grid: tuple[int, int], guide: Guide) -> None:
        self.grid = grid
        self._guide = guide

    def guide(self, images: Tensor) -> Guide:
        """The pass of before, whatever the images."""
        return self._guide


def main() -> None:
    """Print the table."""
    options = parse()
    device = options.device
    torch.manual_seed(0)
    module = SMMixModule(
        CLASSES,
        SIZE,
        options.batch,
        SMMix(),
        backbone=options.model,
        backbone_args={"drop_path_rate": 0.1},
    )
    steps = Steps(module.to(device).train(), options.batch, device, options.precision)
    with autocast(device, options.precision):
        model = Motivated(module.backbone.grid, module.backbone.guide(steps.images))

    @torch.no_grad()
    def mix(mixer: Mixer) -> None:
        mixer(steps.images, steps.labels(), model, steps.rng)

    alone = {
        f"{name}, mixing": clocked(lambda mixer=mixer: mix(mixer), device)
        for name, mixer in MIXERS.items()
    }
    whole = {f"{name}, step": steps.clocked(mixer) for name, mixer in MIXERS.items()}
    times = interleave(alone | whole, options.rounds)
    print(f"{device_name(torch.device(device))}; {versions()}; {options.model},", end=" ")
    print(f"{options.precision}, batch {options.batch}, {options.rounds} rounds\n")
    print(*table("mixing", "alone (ms)", "step (ms)", "share of the step"), sep="\n")
    for name in MIXERS:
        mixing, step = times[f"{name}, mixing"], times[f"{name}, step"]
        share = statistics.median(mixing) / statistics.median(step)
        print(f"| {name} | {median_and_spread(mixing)} | {median_and_spread(step)} | {share:.2%} |")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
