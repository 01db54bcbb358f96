"""What does each mixer cost relative to CutMix, and what does it need? Prints a Markdown table.

    python benchmarks/mixer_cost.py [MIXER ...] [--backbone deit_small_patch16_224] [--size 224]
        [--batch 8] [--rounds 10] [--clock wall]

Every mixer runs in its own branch; MixupCutMix, DeiT's recipe, in both. The recipes of SMMix,
TransMix, TokenMix, MergeMix, TdAttenMix, and MixPro use their branch for half of the batches.

Forward passes: before mixing, without gradient of the weights. Parameters: those of the token head
if the batch carries regions for it. Attention: of the unmixed images (before mixing), of the mixed
images (in their training pass), or none. Teacher: the model itself, or a trained one by option.
Step: time of a complete training step (mixing, forward, backward, AdamW) divided by that of a
CutMix step, medians of alternating rounds. `--clock cpu` measures CPU time instead, for a machine
that runs other programs; set OMP_NUM_THREADS=1 with it.
"""

import argparse
import statistics
from functools import partial

import numpy as np
import torch
from timing import CLASSES, SMOOTHING, Steps, add_options, clocked, interleave, table

from smmix_pl import (
    AttentiveCutMix,
    CutMix,
    FMix,
    GridMix,
    MergeMix,
    Mixer,
    MixPro,
    Mixup,
    MixupCutMix,
    NoMix,
    PuzzleMix,
    ResizeMix,
    SaliencyMix,
    SMMix,
    SMMixModule,
    SUMix,
    TdAttenMix,
    TLAlign,
    TokenMix,
    TransMix,
    soft_labels,
)
from smmix_pl.mixing import Guide

MIXERS: dict[str, Mixer] = {
    type(mixer).__name__: mixer
    for mixer in (
        CutMix(),
        NoMix(),
        Mixup(),
        MixupCutMix(),
        ResizeMix(),
        GridMix(),
        FMix(),
        SaliencyMix(),
        PuzzleMix(),
        AttentiveCutMix(),
        TransMix(switch_prob=1),
        TokenMix(switch_prob=1),
        MixPro(switch_prob=1),
        TLAlign(),
        MergeMix(switch_prob=1),
        TdAttenMix(switch_prob=1),
        SUMix(),
        SMMix(switch_prob=1),
    )
}


def main() -> None:
    """Print the table."""
    options = parse()
    mixers = {name: MIXERS[name] for name in dict.fromkeys(("CutMix", *options.mixers))}
    torch.manual_seed(0)
    modules = {
        readout: SMMixModule(
            CLASSES, (options.size, options.size), options.batch, mixer, backbone=options.backbone
        ).to(options.device)
        for readout, mixer in {mixer.readout: mixer for mixer in mixers.values()}.items()
    }
    images = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    classes = torch.arange(options.batch, device=options.device)
    labels = soft_labels(classes, CLASSES, SMOOTHING)
    steps = median_steps(mixers, modules, options)
    print(f"{options.backbone}, {options.size} x {options.size}, batch {options.batch}", end="")
    print(f", {options.clock} time\n")
    header = "mixer", "forward passes", "parameters (k)", "attention", "teacher"
    print(*table(*header, "step / CutMix step"), sep="\n")
    for name, mixer in mixers.items():
        cells = describe(mixer, modules[mixer.readout], images, labels)
        cells.append(f"{steps[name] / steps['CutMix']:.2f} ({steps[name]:.3f} s)")
        print(f"| {name} | {' | '.join(cells)} |")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mixers", nargs="*", default=list(MIXERS), metavar="MIXER")
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="time to measure")
    add_options(parser, batch=8, rounds=10, precision=False)
    options = parser.parse_args()
    for name in options.mixers:
        if name not in MIXERS:
            parser.error(f"MIXER={name}: unknown value. Use one of {', '.join(MIXERS)}.")
    return options


def describe(
    mixer: Mixer, module: SMMixModule, images: torch.Tensor, labels: torch.Tensor
) -> list[str]:
    """Mix one batch and return forward passes, parameters, attention, and teacher."""
    model = CountingGuide(module)
    mixed = mixer(images, labels, model, np.random.default_rng(0))
    token_head = module.backbone.token_head
    head = 0 if token_head is None else sum(p.numel() for p in token_head.parameters())
    attention = "mixed" if mixed.attentive_labels else "unmixed" if model.passes else "none"
    teacher = "option" if hasattr(mixer, "teacher") else "none"
    return [
        "1, and backward" if model.gradients else str(model.passes),
        f"{head / 1e3:.0f}" if mixed.regions or mixed.unmixed else "0",
        attention,
        "itself" if mixed.teacher_logits is not None else teacher,
    ]


class CountingGuide:
    """Guide model that counts its passes.

    Args:
        module: Module whose backbone runs them.
    """

    def __init__(self, module: SMMixModule) -> None:
        self.backbone = module.backbone
        self.grid = module.backbone.grid
        self.passes = self.gradients = 0

    def guide(self, images: torch.Tensor) -> Guide:
        """Run and count a guide pass."""
        self.passes += 1
        return self.backbone.guide(images)

    def input_gradient(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Run and count a forward and a backward pass."""
        self.gradients += 1
        return self.backbone.input_gradient(images, labels)


def median_steps(
    mixers: dict[str, Mixer], modules: dict[str, SMMixModule], options: argparse.Namespace
) -> dict[str, float]:
    """Return the median seconds per training step of each mixer."""
    steps = {
        readout: Steps(module.train(), options.batch, options.device, "float32")
        for readout, module in modules.items()
    }
    actions = {
        name: clocked(
            partial(steps[mixer.readout].step, mixer), options.device, options.clock == "cpu"
        )
        for name, mixer in mixers.items()
    }
    times = interleave(actions, options.rounds)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


if __name__ == "__main__":
    main()
