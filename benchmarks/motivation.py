"""What do the cheaper motivations cost, and what regions do they choose? Prints a Markdown table.

python benchmarks/motivation.py --images DIR [MODEL ...] [--checkpoint FILE] [--count 64]
    [--precision bf16] [--batch 4] [--rounds 5] [--device auto]

Time: a whole step of SMMix's branch over a CutMix step of the same round, as in benchmarks/step.py;
the recipe takes it on half of the batches. guide_block reads no logits, so it goes without
consistency, and is to be held against the row that has none either.

Regions: intersection over union of the chosen windows with those of the exact motivation, mean over
the first --count images of DIR and all region sides of the recipe; target windows are the least
attended, source windows the most attended. Random windows are the floor. Weights are random unless
--checkpoint, which is of one MODEL, names some.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import CLASSES, Steps, autocast, interleave, median_and_spread, table, versions
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from smmix_pl import CutMix, InputError, Mixer, SMMix, SMMixModule
from smmix_pl.checks import in_range, one_of
from smmix_pl.cli.input_errors import WordsParser, report_input_errors
from smmix_pl.data.io.images import existing_folder
from smmix_pl.data.transforms import EvalTransform, eval_transform, normalize
from smmix_pl.data.unlabeled import ImageFiles
from smmix_pl.mixing.regions import (
    least_attended,
    most_attended,
    random_corners,
    side_range,
    window_mask,
)
from smmix_pl.step_timer import device_name

SIZE = (224, 224)
DRAWS = 20
"""Random windows of each image and side."""
MODELS = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "pvt_t": "pvt_tiny",
}


@dataclass(frozen=True)
class Way:
    """A way to motivate.

    Attributes:
        guide: Arguments of the module.
        guided: Of how many batches in ``of`` the model motivates the regions.
        of: See there.
        consistency: Of the mixer.
    """

    guide: dict[str, Any] = field(default_factory=dict)
    guided: int = 1
    of: int = 1
    consistency: bool = True

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """Those of ``of`` steps."""
        return tuple(
            SMMix(
                switch_prob=1,
                consistency=self.consistency,
                guide_prob=float(step < self.guided),
            )
            for step in range(self.of)
        )


EXACT = "exact"
WAYS = {
    EXACT: Way(),
    **{f"guide_size {size}": Way({"guide_size": size}) for size in (192, 160, 128)},
    "guide_prob 0.5": Way(guided=1, of=2),
    "guide_prob 0.25": Way(guided=1, of=4),
    "random windows": Way(guided=0),
    "exact, no consistency": Way(consistency=False),
}
OF_PLAIN_VITS = {
    f"guide_block {block}": Way({"guide_block": block}, consistency=False)
    for block in (10, 8, 6, 4)
}
Windows = dict[int, tuple[Tensor, Tensor]]
"""By side: tokens in target and source windows, ``(images, N)`` bool."""


def main() -> None:
    """Print the table, a model's rows as soon as they are measured."""
    with report_input_errors():
        options = parse()
        images = photographs(options.images, options.count)
        weights = f"weights of {options.checkpoint}" if options.checkpoint else "random weights"
        print(f"{device_name(torch.device(options.device))}; {versions()}; {options.precision};")
        print(f"batch {options.batch}, {options.rounds} rounds; {len(images)} images, {weights}\n")
        header = "model", "motivation", "step (ms)", "/ CutMix", "IoU of targets", "of sources"
        print(*table(*header), sep="\n")
        for name in options.models:
            print(*rows(name, images, options), sep="\n", flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = WordsParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    for name in options.models:
        one_of("MODEL", name, MODELS)
    for name in ("count", "batch", "rounds"):
        in_range(f"--{name}", getattr(options, name), 1)
    if options.checkpoint and len(options.models) > 1:
        raise InputError(
            f"--checkpoint {options.checkpoint} holds one model's weights, and "
            f"{', '.join(options.models)} were to be measured; name one MODEL"
        )
    return options


def photographs(folder: Path, count: int) -> Tensor:
    """The first images below a folder, normalized: ``(N, 3, H, W)`` on the CPU."""
    existing_folder(folder, "--images")
    files = ImageFiles(folder, eval_transform(EvalTransform(), SIZE))
    pixels = torch.stack([files[index][0] for index in range(min(count, len(files)))])
    return normalize(pixels, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def rows(name: str, images: Tensor, options: argparse.Namespace) -> Iterator[str]:
    """A model's part of the table."""
    ways = WAYS | (OF_PLAIN_VITS if name.startswith("deit") else {})
    steps = trainable(name, ways, options)
    actions = {way: steps[way].clocked(*ways[way].mixers) for way in ways}
    # Weights are moved by the steps: regions are chosen first
    overlaps = overlaps_with_exact(ways, steps, images)
    times = interleave(actions | {"CutMix": steps[EXACT].clocked(CutMix())}, options.rounds, 2)
    for way, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["CutMix"], strict=True))
        cells = name, way, median_and_spread(seconds), f"{ratio:.3f}", *overlaps.get(way, ("", ""))
        yield f"| {' | '.join(cells)} |"


def trainable(name: str, ways: Mapping[str, Way], options: argparse.Namespace) -> dict[str, Steps]:
    """A module for each way, all with the weights of the exact one."""
    steps: dict[str, Steps] = {}
    for way, of in ways.items():
        torch.manual_seed(0)
        module = SMMixModule(
            CLASSES,
            SIZE,
            options.batch,
            SMMix(consistency=of.consistency),
            backbone=MODELS[name],
            backbone_args={"drop_path_rate": 0.1},
            init_from=None if options.checkpoint is None else str(options.checkpoint),
            **of.guide,
        )
        if steps:
            module.backbone.load_state_dict(steps[EXACT].module.backbone.state_dict())
        module.to(options.device).train()
        steps[way] = Steps(module, options.batch, options.device, options.precision)
    return steps


def overlaps_with_exact(
    ways: Mapping[str, Way], steps: Mapping[str, Steps], images: Tensor
) -> dict[str, tuple[str, str]]:
    """Of target and source windows: intersection over union with the exact ones, expected."""
    exact = chosen(steps[EXACT], images)
    floor = random_overlap(exact, steps[EXACT].module.backbone.grid)
    found = {}
    for way, of in ways.items():
        guided = of.guided / of.of
        of_regions = overlap(chosen(steps[way], images), exact) if guided else floor
        expected = (
            guided * own + (1 - guided) * random
            for own, random in zip(of_regions, floor, strict=True)
        )
        target, source = (f"{share:.3f}" for share in expected)
        found[way] = (target, source)
    return found


@torch.no_grad()
def chosen(steps: Steps, images: Tensor) -> Windows:
    """The windows that a model chooses in all images, for all region sides of the recipe."""
    attention = []
    for batch in images.split(len(steps.images)):
        with autocast(steps.device, steps.precision):
            attention.append(steps.module.backbone.guide(batch.to(steps.device)).attention.cpu())
    received, grid = torch.cat(attention), steps.module.backbone.grid
    low, high = side_range(grid, SMMix().min_side_ratio, SMMix().max_side_ratio)
    return {
        side: (
            window_mask(least_attended(received, side), side, grid),
            window_mask(most_attended(received, side), side, grid),
        )
        for side in range(low, high + 1)
    }


def overlap(windows: Windows, exact: Windows) -> tuple[float, float]:
    """Mean intersection over union of target and of source windows, over images and sides."""
    target, source = (
        torch.stack([shared(windows[side][of], exact[side][of]) for side in exact]).mean()
        for of in (0, 1)
    )
    return float(target), float(source)


def shared(ours: Tensor, theirs: Tensor) -> Tensor:
    """Intersection over union of each window ``(images, N)`` with the other."""
    return (ours & theirs).sum(dim=1) / (ours | theirs).sum(dim=1)


def random_overlap(exact: Windows, grid: tuple[int, int]) -> tuple[float, float]:
    """As `overlap`, of windows at random."""
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
