"""What do cheaper guide passes cost, and which regions do they choose? Prints a Markdown table.

    python benchmarks/guide_cost.py [MODEL ...] --images DIR [--checkpoint FILE] [--count 64]
        [--precision bf16] [--batch 4] [--rounds 5]

Time: a complete step of the SMMix branch divided by a CutMix step of the same round, and the same
as trained, which is the mean of the branch and a Mixup step, because the recipe draws each with
probability 0.5. With `guide.block`, the guide pass returns no logits, so there is no consistency
loss. Compare it with the row that has none either. With the EMA as guide, a step includes the
update of the average.

Regions: intersection over union (IoU) of the chosen windows with those of the exact guide pass,
averaged over the first `--count` images of DIR and all region sides of the recipe. Target windows
are the least attended, source windows the most attended. Random windows are the lower bound.
Weights are random unless `--checkpoint` loads those of one MODEL.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timing import (
    RECIPE_ARGS,
    SIZE,
    Steps,
    add_options,
    autocast,
    build_module,
    conditions,
    interleave,
    median_ratio,
    milliseconds,
    table,
)
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smmix_pl import CutMix, InputError, Mixer, Mixup, SMMix
from smmix_pl.checks import in_range, one_of
from smmix_pl.cli.input_errors import report_input_errors
from smmix_pl.data.transforms import EvalTransform, eval_transform, normalize
from smmix_pl.data.unlabeled import ImageFiles
from smmix_pl.mixing.regions import (
    least_attended,
    most_attended,
    random_corners,
    side_range,
    window_mask,
)
from smmix_pl.models.guide_config import GuideConfig

HEADER = (
    *("model", "guide", "step (ms)", "/ CutMix", "as trained / CutMix"),
    *("IoU of targets", "IoU of sources"),
)
DRAWS = 20
"""Random windows per image and side."""
DECAY = 0.99996
"""Of the average, that of DeiT."""
MODELS = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "pvt_t": "pvt_tiny",
}


@dataclass(frozen=True)
class Variant:
    """A way to guide SMMix.

    Attributes:
        guide: Settings of the guide pass.
        period: Number of steps that one measurement averages over.
        guided: How many of them use the guide; the others place regions at random. Their ratio
            corresponds to `guide_prob`.
        consistency: Whether the consistency loss is used.
        ema: Whether an average of the weights, updated in each step, runs the guide pass.
    """

    guide: GuideConfig = GuideConfig()
    period: int = 1
    guided: int = 1
    consistency: bool = True
    ema: bool = False

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """One mixer for each step of a period."""
        return tuple(
            SMMix(switch_prob=1, consistency=self.consistency, guide_prob=float(step < self.guided))
            for step in range(self.period)
        )


EXACT = "exact"
VARIANTS = {
    EXACT: Variant(),
    **{f"guide.size {size}": Variant(GuideConfig(size=size)) for size in (192, 160, 128)},
    "guide_prob 0.5": Variant(period=2),
    "guide_prob 0.25": Variant(period=4),
    **{
        f"guide.readout {readout}": Variant(GuideConfig(readout=readout))
        for readout in ("class", "similarity")
    },
    "guide.precision float32": Variant(GuideConfig(precision="float32")),
    "EMA.as_guide": Variant(ema=True),
    "random windows": Variant(guided=0),
    "exact, no consistency loss": Variant(consistency=False),
}
PLAIN_VIT_VARIANTS = {
    f"guide.block {block}": Variant(GuideConfig(block=block), consistency=False)
    for block in (10, 8, 6, 4)
}
Windows = dict[int, tuple[Tensor, Tensor]]
"""Tokens in target and source windows, each `(images, N)` bool, by side."""


def main() -> None:
    """Print the table, the rows of a model as soon as they are measured."""
    with report_input_errors():
        options = parse()
        images = load_images(options.images, options.count)
        weights = f"weights of {options.checkpoint}" if options.checkpoint else "random weights"
        print(f"{conditions(options)}; {len(images)} images, {weights}\n")
        print(*table(*HEADER), sep="\n")
        for name in options.models:
            print(*rows(name, images, options), sep="\n", flush=True)


def parse() -> argparse.Namespace:
    """Parse the command line.

    Raises:
        InputError: A value is out of range, or a checkpoint is given for several models.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--count", type=int, default=64, help="number of images for the IoU")
    add_options(parser, batch=4, rounds=5)
    options = parser.parse_args()
    for name in options.models:
        one_of("MODEL", name, MODELS)
    for name in ("count", "batch", "rounds"):
        in_range(f"--{name}", getattr(options, name), 1)
    if options.checkpoint and len(options.models) > 1:
        raise InputError(
            f"--checkpoint={options.checkpoint}: contains the weights of one model, but "
            f"{', '.join(options.models)} are to be measured. Name one MODEL."
        )
    return options


def load_images(folder: Path, count: int) -> Tensor:
    """Return the first images below a folder, normalized, `(count, 3, H, W)` on the CPU."""
    files = ImageFiles(folder, eval_transform(EvalTransform(), SIZE), option="--images")
    pixels = torch.stack([files[index][0] for index in range(min(count, len(files)))])
    return normalize(pixels, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def rows(name: str, images: Tensor, options: argparse.Namespace) -> Iterator[str]:
    """Yield the table rows of one model."""
    variants = VARIANTS | (PLAIN_VIT_VARIANTS if name.startswith("deit") else {})
    steps = build_steps(name, variants, options)
    actions = {key: steps[key].clocked(*variants[key].mixers) for key in variants}
    # Steps change the weights, so regions are chosen first
    overlaps = overlaps_with_exact(variants, steps, images)
    peers = {"Mixup": Mixup(), "CutMix": CutMix()}
    actions |= {peer: steps[EXACT].clocked(mixer) for peer, mixer in peers.items()}
    times = interleave(actions, options.rounds, warmup=2)
    mixup, cutmix = times["Mixup"], times["CutMix"]
    for key, seconds in times.items():
        trained = [(step + other) / 2 for step, other in zip(seconds, mixup, strict=True)]
        ratio = "" if key in peers else f"{median_ratio(trained, cutmix):.3f}"
        cells = milliseconds(seconds), f"{median_ratio(seconds, cutmix):.3f}", ratio
        yield f"| {' | '.join((name, key, *cells, *overlaps.get(key, ('', ''))))} |"


def build_steps(
    name: str, variants: Mapping[str, Variant], options: argparse.Namespace
) -> dict[str, Steps]:
    """Return the training steps of each variant, all with the weights of the exact one."""
    steps: dict[str, Steps] = {}
    for key, variant in variants.items():
        module = build_module(
            MODELS[name],
            options,
            SMMix(consistency=variant.consistency),
            backbone_args=RECIPE_ARGS,
            init_from=None if options.checkpoint is None else str(options.checkpoint),
            guide=variant.guide,
        )
        if steps:
            module.backbone.load_state_dict(steps[EXACT].module.backbone.state_dict())
        steps[key] = Steps(module, options.batch, options.device, options.precision)
        if variant.ema:
            guide_by_average(steps[key])
    return steps


def guide_by_average(steps: Steps) -> None:
    """Let an average of the weights run the guide pass, and update it in each step."""
    backbone = steps.module.backbone
    average = AveragedModel(backbone, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    steps.module.set_guide_model(average.module)
    steps.optimizer.register_step_post_hook(lambda *_: average.update_parameters(backbone))


def overlaps_with_exact(
    variants: Mapping[str, Variant], steps: Mapping[str, Steps], images: Tensor
) -> dict[str, tuple[str, str]]:
    """Return the expected IoU of target and source windows with the exact ones, by variant."""
    exact = chosen_windows(steps[EXACT], images)
    lower_bound = random_overlap(exact, steps[EXACT].module.backbone.grid)
    overlaps = {}
    for key, variant in variants.items():
        if variant.ema:  # untrained, the average equals the weights
            continue
        fraction = variant.guided / variant.period
        own = overlap(chosen_windows(steps[key], images), exact) if fraction else lower_bound
        target, source = (
            f"{fraction * guided + (1 - fraction) * random:.3f}"
            for guided, random in zip(own, lower_bound, strict=True)
        )
        overlaps[key] = (target, source)
    return overlaps


@torch.no_grad()
def chosen_windows(steps: Steps, images: Tensor) -> Windows:
    """Return the windows that a model chooses, for all region sides of the recipe."""
    maps = []
    for batch in images.split(len(steps.images)):
        with autocast(steps.device, steps.precision):
            maps.append(steps.module.backbone.guide(batch.to(steps.device)).attention.cpu())
    attention, grid = torch.cat(maps), steps.module.backbone.grid
    low, high = side_range(grid, SMMix().min_side_ratio, SMMix().max_side_ratio)
    return {
        side: (
            window_mask(least_attended(attention, side), side, grid),
            window_mask(most_attended(attention, side), side, grid),
        )
        for side in range(low, high + 1)
    }


def overlap(windows: Windows, exact: Windows) -> tuple[float, float]:
    """Return the mean IoU of target and of source windows, over images and sides."""
    target, source = (
        torch.stack([window_iou(windows[side][kind], exact[side][kind]) for side in exact]).mean()
        for kind in (0, 1)
    )
    return float(target), float(source)


def window_iou(windows: Tensor, others: Tensor) -> Tensor:
    """Return the IoU of each pair of windows `(images, N)`."""
    return (windows & others).sum(dim=1) / (windows | others).sum(dim=1)


def random_overlap(exact: Windows, grid: tuple[int, int]) -> tuple[float, float]:
    """Return the mean IoU of randomly placed windows, as `overlap` does."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        drawn = {
            side: tuple(
                window_mask(random_corners(len(mask), grid, side, rng), side, grid)
                for mask in masks
            )
            for side, masks in exact.items()
        }
        draws.append(overlap(drawn, exact))
    target, source = np.mean(draws, axis=0)
    return float(target), float(source)


if __name__ == "__main__":
    main()
