"""How well does a guide find the object of an image? Prints Markdown tables and draws a figure.

    python benchmarks/guide_quality.py MODEL --images DIR --annotations FILE [FILE ...]
    python benchmarks/guide_quality.py MODEL --images DIR --masks DIR
        [--init FILE | --pretrained] [--size 224] [--readouts tokens class similarity]
        [--blocks 3 6 9] [--guide-sizes 168 112] [--sides 4 8] [--draws 3] [--out FOLDER]

Annotations are COCO's (polygons, or boxes without one). Masks are images of the same stem as the
photograph, non-zero on the object. The object of an image is its largest instance; images where it
covers less than 3% or more than 50% are skipped. Images are resized to squares.

Pasted: fraction of the source's object inside the most attended window (higher is better). Hidden:
fraction of the target's object inside the least attended window (lower is better). Label error:
|lam - v|, where v is the target's fraction of the visible object area, over all pairs of images
that leave an object visible. Random windows are averaged over all windows. "The object itself" is
the best possible guide.

The second table compares complete mixers on random pairs, with regions as in their recipes. The
labels of MixPro need a classifier of these images. It is assumed to be right, so that the attention
alone decides.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from object_images import Objects, load_objects
from timing import table
from torch import Tensor
from torch.nn import functional as F

from smmix_pl import (
    AttentiveCutMix,
    Backbone,
    CutMix,
    Mixer,
    MixPro,
    SaliencyMix,
    SMMix,
    TokenMix,
    TransMix,
)
from smmix_pl.checks import in_range
from smmix_pl.cli.input_errors import report_input_errors
from smmix_pl.mixing import Guide, Readout
from smmix_pl.mixing.regions import (
    least_attended,
    most_attended,
    side_range,
    window_mask,
    window_scores,
)
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.weights import load_weights
from smmix_pl.plots.style import GRAY, add_note, line_style, paper_style, style_axes

READOUTS: tuple[Readout, ...] = ("tokens", "class", "similarity")
MEASURES = {"pasted": "object pasted", "hidden": "object hidden", "error": "label error"}
RANDOM, ORACLE = "random windows", "the object itself"
BATCH = 32
TAG, DIGIT = 2**-12, 2**-8
"""Pixels are rounded to DIGIT; multiples of TAG below it identify image and object."""
Quality = dict[str, float]
"""Value of each measure."""


def main() -> None:
    """Print both tables and draw the figure."""
    with report_input_errors():
        options = parse()
        objects = load_objects(options.images, options.annotations, options.masks, options.size)
        maps = {
            name: guide_maps(load(options, config), objects.images)
            for name, config in guides(options).items()
        }
        grid = next(iter(maps.values())).shape[1:]
        maps[ORACLE] = F.adaptive_avg_pool2d(objects.masks[:, None].float(), grid)[:, 0]
        low, high = side_range((grid[0], grid[1]), 0.25, 0.75)
        by_side = {side: qualities(maps, side) for side in range(low, high + 1)}
        sides = options.sides or [low, 2 * low]
        for side in sides:
            in_range("--sides", side, low, high)
        print(f"{options.model}, {len(objects.images)} images, {grid[0]} x {grid[1]} tokens\n")
        print(*quality_table(by_side, sides), sep="\n")
        print("", *peer_table(objects, maps, options), sep="\n")
        options.out.mkdir(parents=True, exist_ok=True)
        note = f"{options.model}: windows of one guide pass, n = {len(objects.images)} images"
        draw(by_side, note).savefig(options.out / "guide_quality.png")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="name of a timm model")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    known = parser.add_mutually_exclusive_group(required=True)
    known.add_argument("--annotations", type=Path, nargs="+", default=[], metavar="FILE")
    known.add_argument("--masks", type=Path, metavar="DIR")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--init", type=Path, metavar="FILE", help="weights to load")
    weights.add_argument("--pretrained", action="store_true", help="timm's weights")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--readouts", nargs="+", choices=READOUTS, default=READOUTS)
    parser.add_argument("--blocks", type=int, nargs="*", default=[], help="earlier blocks")
    parser.add_argument(
        "--guide-sizes", type=int, nargs="*", default=[], help="smaller images in the guide pass"
    )
    parser.add_argument("--sides", type=int, nargs="*", default=[], help="in the first table")
    parser.add_argument("--draws", type=int, default=3, help="pairings in the second table")
    parser.add_argument("--out", type=Path, default=Path("runs/guide_quality"))
    return parser.parse_args()


def guides(options: argparse.Namespace) -> dict[str, GuideConfig]:
    """Return the settings of each guide: every readout, also of earlier blocks and small images."""
    found = {readout: GuideConfig(readout=readout) for readout in options.readouts}
    for size in options.guide_sizes:
        for readout in options.readouts:
            found[f"{readout}, {size} pixels"] = GuideConfig(readout=readout, size=size)
    for block in options.blocks:
        for readout in options.readouts:
            if readout != "similarity":
                found[f"{readout}, block {block}"] = GuideConfig(readout=readout, block=block)
    return found


def load(options: argparse.Namespace, guide: GuideConfig) -> Backbone:
    """Return the model in eval mode. Random weights are those of seed 0."""
    torch.manual_seed(0)
    backbone = Backbone(options.model, 10, options.size, guide=guide, pretrained=options.pretrained)
    if options.init is not None:
        load_weights(backbone, options.init)
    return backbone.eval()


def guide_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Return the guide's attention for images `(B, 3, H, W)`: `(B, G_h, G_w)`."""
    return torch.cat([backbone.guide(batch).attention for batch in images.split(BATCH)])


def qualities(maps: dict[str, Tensor], side: int) -> dict[str, Quality]:
    """Return the quality of the windows of each guide, and of random windows, at one side."""
    objects = maps[ORACLE]
    grid = (objects.shape[1], objects.shape[2])
    lam = 1 - side**2 / (grid[0] * grid[1])
    inside = window_scores(objects, side).flatten(1)  # (B, windows)
    found = {RANDOM: window_quality(objects, inside, inside, lam)}
    for name, attention in maps.items():
        hidden, pasted = (
            (objects.flatten(1) * window_mask(corners, side, grid)).sum(1, keepdim=True)
            for corners in (least_attended(attention, side), most_attended(attention, side))
        )
        found[name] = window_quality(objects, hidden, pasted, lam)
    return found


def window_quality(objects: Tensor, hidden: Tensor, pasted: Tensor, lam: float) -> Quality:
    """Return the measures, averaged over images, windows, and pairs of different images.

    Args:
        objects: Covered fraction of each token, `(B, G_h, G_w)`.
        hidden: Object area inside windows of the target image, `(B, W)`.
        pasted: Object area inside windows of the source image, `(B, W)`.
        lam: Target fraction.
    """
    area = objects.sum(dim=(1, 2))[:, None]
    errors = []
    for target in range(len(objects)):
        visible = (area - hidden)[target, :, None, None]  # (W, 1, 1)
        of_others = torch.cat((pasted[:target], pasted[target + 1 :]))  # (B - 1, W)
        errors.append((lam - visible / (visible + of_others)).abs().nanmean())
    return {
        "pasted": (pasted / area).mean().item(),
        "hidden": (hidden / area).mean().item(),
        "error": torch.stack(errors).nanmean().item(),
    }


def quality_table(by_side: dict[int, dict[str, Quality]], sides: Sequence[int]) -> Iterator[str]:
    """Yield a Markdown table with one row per guide."""
    columns = [(measure, side) for measure in MEASURES for side in sides]
    yield from table("guide", *(f"{MEASURES[measure]}, {side}" for measure, side in columns))
    for name in by_side[sides[0]]:
        cells = (f"{by_side[side][name][measure]:.3f}" for measure, side in columns)
        yield f"| {name} | {' | '.join(cells)} |"


@dataclass(frozen=True)
class KnownGuide:
    """Guide model that returns attention computed before, for a pair of images.

    Attributes:
        attention: `(2, G_h, G_w)`.
    """

    attention: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid."""
        return self.attention.shape[1], self.attention.shape[2]

    def guide(self, images: Tensor) -> Guide:
        """Return the attention."""
        return Guide(None, self.attention)


def peers(maps: dict[str, Tensor]) -> dict[str, tuple[Mixer, str]]:
    """Return each mixer in its own branch, and the guide of its regions or labels."""
    default = "tokens" if "tokens" in maps else next(iter(maps))
    found: dict[str, tuple[Mixer, str]] = {
        "CutMix": (CutMix(), default),
        "SaliencyMix": (SaliencyMix(peak="each"), default),
        "AttentiveCutMix": (AttentiveCutMix(), default),
        "TokenMix": (TokenMix(switch_prob=1), default),
        "MixPro, area labels": (MixPro(switch_prob=1, progressive=False), default),
        "SMMix, random regions": (smmix("random"), default),
    }
    if "class" in maps:
        found["MixPro, attention labels"] = (MixPro(switch_prob=1), "class")
        found["TransMix"] = (TransMix(switch_prob=1), "class")
    guided = {f"SMMix, {name}": (smmix(), name) for name in (*READOUTS, ORACLE) if name in maps}
    return found | guided


def smmix(region_choice: str = "max-min") -> SMMix:
    """Return SMMix's own branch without losses that need a classifier."""
    return SMMix(switch_prob=1, region_choice=region_choice, consistency=False)


def peer_table(
    objects: Objects, maps: dict[str, Tensor], options: argparse.Namespace
) -> Iterator[str]:
    """Yield a Markdown table with one row per mixer."""
    yield from table("mixer", "area pasted", *MEASURES.values())
    backbone = load(options, GuideConfig(readout="class")) if "class" in maps else None
    for name, (mixer, guide) in peers(maps).items():
        pairs = [
            mix_pair(mixer, objects, maps[guide], pair, seed, backbone)
            for seed in range(options.draws)
            for pair in pairings(len(objects.images), seed)
        ]
        cells = (f"{value:.3f}" for value in torch.cat(pairs).nanmean(dim=0).tolist())
        yield f"| {name} | {' | '.join(cells)} |"


def pairings(count: int, seed: int) -> Tensor:
    """Return disjoint random pairs of images, `(pairs, 2)`."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    return order[: count // 2 * 2].view(-1, 2)


def mix_pair(
    mixer: Mixer,
    objects: Objects,
    attention: Tensor,
    pair: Tensor,
    seed: int,
    backbone: Backbone | None,
) -> Tensor:
    """Mix a pair both ways and return area pasted, pasted, hidden, and error of both, `(2, 4)`."""
    masks, images = objects.masks[pair], tagged(objects.images[pair], objects.masks[pair])
    rng = np.random.default_rng((seed, *pair.tolist()))
    mixed = mixer(images, torch.eye(2), KnownGuide(attention[pair]), rng)
    from_source, of_object = read_tags(mixed.images)
    area = masks.flatten(1).sum(1)
    visible = (of_object & ~from_source).flatten(1).sum(1)
    pasted = (of_object & from_source).flatten(1).sum(1)
    labels = mixed.labels
    if mixed.attentive_labels is not None and backbone is not None:
        with torch.no_grad():
            seen = backbone.features(mixed.images, with_attention=True).attention
        assert seen is not None
        labels = mixed.attentive_labels(seen, labels.log())  # the prediction is right
    error = (labels.diagonal() - visible / (visible + pasted)).abs()
    shown = from_source.flatten(1).float().mean(1)
    return torch.stack((shown, pasted / area.flip(0), 1 - visible / area, error), dim=1)


def tagged(images: Tensor, masks: Tensor) -> Tensor:
    """Write into each pixel of a pair which image it is from and whether it is on the object.

    A mixer that copies pixels moves the tags with them. They are too small to be seen.
    """
    images = (images / DIGIT).floor() * DIGIT
    images[:, 0] += TAG * (2 * torch.arange(2)[:, None, None] + masks)
    return images


def read_tags(mixed: Tensor) -> tuple[Tensor, Tensor]:
    """Return where pixels come from the source image, and where from an object: `(2, H, W)`."""
    tags = (mixed[:, 0] / TAG).round().long() % round(DIGIT / TAG)
    return tags // 2 != torch.arange(2)[:, None, None], tags % 2 == 1


@paper_style
def draw(by_side: dict[int, dict[str, Quality]], note: str) -> Figure:
    """Draw each measure by window side, one line per guide."""
    figure = Figure(figsize=(7.0, 2.7), layout="constrained")
    names = list(next(iter(by_side.values())))
    for axes, (measure, label) in zip(figure.subplots(1, 3), MEASURES.items(), strict=True):
        for index, name in enumerate(names):
            style = line_style(index)
            if name in (RANDOM, ORACLE):
                style = {"color": GRAY, "linestyle": "--" if name == RANDOM else ":"}
            values = [found[name][measure] for found in by_side.values()]
            axes.plot(list(by_side), values, label=name, **style)
        style_axes(axes)
        axes.set(xlabel="Side of the window (tokens)", ylabel=label.capitalize(), ylim=(0, None))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    add_note(figure, note)
    return figure


if __name__ == "__main__":
    main()
