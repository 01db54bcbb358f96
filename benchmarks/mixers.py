"""What does each mixer cost beside CutMix, and what does it ask of the model? A Markdown table.

python benchmarks/mixers.py [MIXER ...] [--backbone deit_small_patch16_224] [--size 224]
    [--batch 8] [--rounds 10] [--device auto]

Every mixer is taken in its own branch, and MixupCutMix, DeiT's recipe, in both; the recipes of
SMMix, TransMix, TokenMix and MixPro take it on half of the batches. Forward passes: without
gradient, before mixing. Parameters: the token head, where the batch has regions for it.
Attention: of unmixed images (before mixing), of the mixed ones (in their training pass) or none.
Teacher: the model itself, or a trained one by option. Step: time of a whole training step (mixing,
forward, backward, AdamW) over that of a CutMix step: taken in turn in one process, the median of
each, the first round uncounted.
"""

import argparse
import statistics

import numpy as np
import torch
from timing import CLASSES, Steps, interleave

from smmix_pl import (
    AttentiveCutMix,
    CutMix,
    FMix,
    GridMix,
    Mixer,
    MixPro,
    Mixup,
    MixupCutMix,
    NoMix,
    ResizeMix,
    SaliencyMix,
    SMMix,
    SMMixModule,
    TokenMix,
    TransMix,
)
from smmix_pl.mixing import Guide, soft_labels

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
        AttentiveCutMix(),
        TransMix(switch_prob=1),
        TokenMix(switch_prob=1),
        MixPro(switch_prob=1),
        SMMix(switch_prob=1),
    )
}


def main() -> None:
    """Print the table."""
    options = parse()
    mixers = {name: MIXERS[name] for name in dict.fromkeys(("CutMix", *options.mixers))}
    torch.manual_seed(0)
    modules = {
        attention: SMMixModule(
            CLASSES,
            (options.size, options.size),
            options.batch,
            mixer,
            backbone=options.backbone,
        ).to(options.device)
        for attention, mixer in {mixer.readout: mixer for mixer in mixers.values()}.items()
    }
    images = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    labels = soft_labels(torch.arange(options.batch, device=options.device), CLASSES, 0.1)
    steps = median_steps(mixers, modules, options)
    print(f"{options.backbone}, {options.size} x {options.size}, batches of {options.batch}:\n")
    print("| mixer | forward passes | parameters (k) | attention | teacher | step / CutMix step |")
    print("|---|---|---|---|---|---|")
    for name, mixer in mixers.items():
        cells = describe(mixer, modules[mixer.readout], images, labels)
        cells.append(f"{steps[name] / steps['CutMix']:.2f} ({steps[name]:.3f} s)")
        print(f"| {name} | {' | '.join(cells)} |")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mixers", nargs="*", default=list(MIXERS), metavar="MIXER")
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    for name in options.mixers:
        if name not in MIXERS:
            parser.error(f"{name} is none of {', '.join(MIXERS)}")
    return options


def describe(
    mixer: Mixer, module: SMMixModule, images: torch.Tensor, labels: torch.Tensor
) -> list[str]:
    """Forward passes, parameters, attention and teacher, as one batch shows them."""
    model = Counted(module)
    mixed = mixer(images, labels, model, np.random.default_rng(0))
    token_head = module.backbone.token_head
    head = 0 if token_head is None else sum(p.numel() for p in token_head.parameters())
    attention = "mixed" if mixed.attentive_labels else "unmixed" if model.passes else "none"
    teacher = "option" if hasattr(mixer, "teacher") else "none"
    return [
        str(model.passes),
        f"{head / 1e3:.0f}" if mixed.regions else "0",
        attention,
        "itself" if mixed.teacher_logits is not None else teacher,
    ]


class Counted:
    """A module's backbone that counts its motivating passes."""

    def __init__(self, module: SMMixModule) -> None:
        self.backbone = module.backbone
        self.grid = module.backbone.grid
        self.passes = 0

    def guide(self, images: torch.Tensor) -> Guide:
        """The motivating pass."""
        self.passes += 1
        return self.backbone.guide(images)


def median_steps(
    mixers: dict[str, Mixer], modules: dict[str, SMMixModule], options: argparse.Namespace
) -> dict[str, float]:
    """Seconds of one training step of each mixer."""
    steps = {
        attention: Steps(module.train(), options.batch, options.device, "float32")
        for attention, module in modules.items()
    }
    actions = {name: steps[mixer.readout].clocked(mixer) for name, mixer in mixers.items()}
    times = interleave(actions, options.rounds)
    return {name: statistics.median(taken) for name, taken in times.items()}


if __name__ == "__main__":
    main()
