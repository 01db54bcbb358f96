"""What is it worth to know where the object is? Prints a Markdown table.

    python benchmarks/oracle_study.py MODEL --objects DIR --backgrounds DIR
        [--init FILE | --pretrained] [--seeds 0 1 2 3 4] [--guides none random oracle ...]
        [--held-out] [--reduced] [--out FOLDER]

An object is a photograph of the class folders `train/<class>/*` and `val/<class>/*`, and a scene is
an object at a random place in a crop of a photograph of the folder of backgrounds. The class of a
scene is that of its object. MODEL encodes each cell of a scene on its own and is frozen (see
scenes.py). A small ViT, whose tokens are the cells, is trained on the encoded scenes, with SMMix in
every batch. Only the guide of its regions differs:

- oracle: the object's mask. Half oracle: the mask for a random half of the scenes, and noise for
  the others. Anti-oracle: the inverted mask. Noise breaks ties.
- tokens, class, similarity: the readouts of the ViT being trained.
- random: windows at random.

`none` and `CutMix` are trained in the same way. All guides of a seed share objects, scenes, initial
weights, and window sides. Every other background is kept for evaluation. `val/` is evaluated once,
after the last step. To choose settings, `--held-out` trains on three fifths of `train/` and
evaluates on the rest. `--reduced` trains without the fine-grained and consistency losses.

Object pasted and object hidden are those of guide_quality.py, after training, for windows of the
object's size. Encodings and runs are written to `--out` and not repeated. Differences are from
random windows or, without these, from the first of `--guides`.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from guide_quality import ORACLE, RANDOM, READOUTS, load, qualities
from scenes import Scenes, encode
from timing import table
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from smmix_pl import Backbone, CutMix, Mixer, NoMix, SMMix, SMMixLoss
from smmix_pl.cli.input_errors import report_input_errors
from smmix_pl.data.io.file_lists import class_folders, folder_samples, image_files
from smmix_pl.data.splits import few_shot, stratified_split
from smmix_pl.mixing import Guide, soft_labels
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.reporting.paired_seeds import paired_difference

MASKS = ("oracle", "half oracle", "anti-oracle")
GUIDES = ("none", "CutMix", "random", *READOUTS, *MASKS)
COLUMNS = {"pasted": 2, "hidden": 2, "top1": 2, "nll": 3}
"""Measures, and their decimal places."""
BACKGROUND, GRID, OBJECT, CELL = 6, 4, 2, 56
"""Sides of a background, a scene, and an object in cells, and of a cell in pixels."""
HELD_OUT = 0.4
SMOOTHING = 0.1
NOISE = 1e-3
"""Amplitude of the noise that breaks ties between windows."""
VIT = {
    "patch_size": 1,
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 4,
    "proj_drop_rate": 0.2,
    "pos_drop_rate": 0.2,
}
"""The network that is trained."""
Measured = dict[str, float]
"""Measures of one run."""


@dataclass(frozen=True)
class OtherAttention:
    """Guide model with the logits of a backbone and attention from elsewhere.

    Attributes:
        backbone: The model being trained.
        attention: `(B, G, G)`.
    """

    backbone: Backbone
    attention: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid."""
        return self.backbone.grid

    def guide(self, images: Tensor) -> Guide:
        """Run the guide pass and replace its attention."""
        return replace(self.backbone.guide(images), attention=self.attention)


def main() -> None:
    """Train the missing runs and print the table."""
    with report_input_errors():
        options = parse()
        train, test = read_scenes(options)
        found: dict[str, dict[int, Measured]] = {guide: {} for guide in options.guides}
        for seed in options.seeds:
            for guide in options.guides:
                file = options.out / f"{guide.replace(' ', '_')}_{seed}.json"
                if not file.is_file():
                    measured = run(guide, seed, train, test, options)
                    file.write_text(json.dumps(measured))
                    print(f"{guide}, seed {seed}: {measured}", file=sys.stderr)
                found[guide][seed] = json.loads(file.read_text())
        print(*results(found), sep="\n")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="name of a timm ViT with a class token")
    parser.add_argument("--objects", type=Path, required=True, metavar="DIR")
    parser.add_argument("--backgrounds", type=Path, required=True, metavar="DIR")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--init", type=Path, metavar="FILE", help="weights to load")
    weights.add_argument("--pretrained", action="store_true", help="timm's weights")
    parser.add_argument("--shots", type=int, default=30, help="training objects per class")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64, help="scenes per step")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--guides", nargs="+", choices=GUIDES, default=GUIDES)
    parser.add_argument("--held-out", action="store_true", help="evaluate on held-out objects")
    parser.add_argument("--reduced", action="store_true", help="without the two extra losses")
    parser.add_argument("--out", type=Path, default=Path("runs/oracle_study"))
    return parser.parse_args(namespace=argparse.Namespace(size=CELL))


def read_scenes(options: argparse.Namespace) -> tuple[Scenes, Scenes]:
    """Return the scenes to train on, of which each seed uses some objects, and to evaluate on."""
    names = class_folders(options.objects / "train")
    samples = {part: folder_samples(options.objects / part, names) for part in ("train", "val")}
    labels = {part: torch.tensor([label for _, label in samples[part]]) for part in samples}
    encodings = options.out / "encodings.pt"
    if not encodings.is_file():
        options.out.mkdir(parents=True, exist_ok=True)
        files = {part: [Path(str(file)) for file, _ in samples[part]] for part in samples}
        scenery = [Path(file) for file in image_files(options.backgrounds)[0]]
        torch.save(encode_all(files, scenery, options), encodings)
    encoded = torch.load(encodings, weights_only=True)
    backgrounds = encoded["backgrounds"]

    def scenes(part: str, chosen: slice | list[int], parity: int) -> Scenes:
        objects, classes = encoded[part][chosen], labels[part][chosen]
        return Scenes(objects, classes, backgrounds[parity::2], GRID)

    if options.held_out:
        kept, held_out = stratified_split(labels["train"].tolist(), HELD_OUT, seed=0)
        return scenes("train", kept, 0), scenes("train", held_out, 1)
    return scenes("train", slice(None), 0), scenes("val", slice(None), 1)


def encode_all(
    objects: Mapping[str, Sequence[Path]], backgrounds: Sequence[Path], options: argparse.Namespace
) -> dict[str, Tensor]:
    """Encode objects and backgrounds, and standardize them by the training objects."""
    model = load(options, GuideConfig())
    encoded = {part: encode(files, OBJECT, model, CELL) for part, files in objects.items()}
    encoded["backgrounds"] = encode(backgrounds, BACKGROUND, model, CELL)
    channels = encoded["train"].transpose(0, 1).flatten(1)
    mean, std = (value[:, None, None] for value in (channels.mean(1), channels.std(1)))
    return {name: (values - mean) / std for name, values in encoded.items()}


def run(
    guide: str, seed: int, train: Scenes, test: Scenes, options: argparse.Namespace
) -> Measured:
    """Train with one guide and seed, and evaluate once."""
    torch.manual_seed(seed)
    backbone = create_backbone(guide, train)
    fit(backbone, guide, seed, train, options)
    backbone.eval()
    scenes, masks = test.draw(torch.arange(len(test.classes)), np.random.default_rng(0))
    with torch.no_grad():
        logits = backbone(scenes)
    right = (logits.argmax(dim=1) == test.classes).float().mean().item()
    measured = {"top1": 100 * right, "nll": F.cross_entropy(logits, test.classes).item()}
    if guide in ("none", "CutMix"):
        return measured
    known = known_attention(guide, masks, np.random.default_rng(seed))
    attention = backbone.guide(scenes).attention if known is None else known
    windows = qualities({guide: attention, ORACLE: masks}, OBJECT)
    quality = windows[RANDOM if guide == "random" else guide]
    return measured | {name: 100 * quality[name] for name in ("pasted", "hidden")}


def create_backbone(guide: str, scenes: Scenes) -> Backbone:
    """Return the ViT to train, with random weights."""
    width, grid = scenes.objects.shape[1], scenes.grid
    args: dict[str, Any] = VIT | {"in_chans": width, "img_size": grid}
    shape = {"input_size": (width, grid, grid)}
    classes = int(scenes.classes.max()) + 1
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=classes, pretrained_cfg_overlay=shape, **args
    )
    readout = guide if guide in READOUTS else "tokens"
    return Backbone(vit, image_size=grid, guide=GuideConfig(readout=readout))


def fit(
    backbone: Backbone, guide: str, seed: int, train: Scenes, options: argparse.Namespace
) -> None:
    """Train the ViT on scenes of a few objects per class."""
    chosen = torch.tensor(few_shot(train.classes.tolist(), options.shots, seed))
    optimizer = torch.optim.AdamW(backbone.parameters(), options.lr, weight_decay=0.05)
    schedule = OneCycleLR(optimizer, options.lr, total_steps=options.steps, pct_start=0.1)
    criterion = SMMixLoss(backbone)
    mixer = create_mixer(guide, options.reduced)
    classes = int(train.classes.max()) + 1
    for step in range(options.steps):
        rng = np.random.default_rng((seed, step))
        batch = chosen[rng.integers(len(chosen), size=options.batch)]
        scenes, masks = train.draw(batch, rng)
        labels = soft_labels(train.classes[batch], classes, SMOOTHING)
        attention = known_attention(guide, masks, np.random.default_rng((seed, step, 1)))
        model = backbone if attention is None else OtherAttention(backbone, attention)
        with torch.no_grad():
            mixed = mixer(scenes, labels, model, rng)
        optimizer.zero_grad()
        criterion(mixed).backward()
        optimizer.step()
        schedule.step()


def create_mixer(guide: str, reduced: bool) -> Mixer:
    """Return the mixer of a guide."""
    if guide in ("none", "CutMix"):
        return NoMix() if guide == "none" else CutMix()
    extra = not reduced
    return SMMix(
        switch_prob=1,
        region_choice="random" if guide == "random" else "max-min",
        fine_grained=extra,
        consistency=extra,
    )


def known_attention(guide: str, masks: Tensor, rng: np.random.Generator) -> Tensor | None:
    """Return the attention of a guide that knows the objects, or None for other guides.

    Args:
        guide: Name of the guide.
        masks: 1.0 where the objects are, `(B, G, G)`.
        rng: Source of noise.
    """
    if guide not in MASKS:
        return None
    noise = NOISE * torch.from_numpy(rng.random(masks.shape, dtype=np.float32))
    if guide == "anti-oracle":
        return 1 - masks + noise
    known = rng.random(len(masks)) < (0.5 if guide == "half oracle" else 1)
    return masks * torch.from_numpy(known)[:, None, None] + noise


def results(found: Mapping[str, Mapping[int, Measured]]) -> Iterator[str]:
    """Yield a Markdown table: means over seeds, and paired differences from the baseline."""
    name = "random" if "random" in found else next(iter(found))
    baseline = found[name]
    names = ("object pasted (%)", "object hidden (%)", "top-1", "NLL")
    yield from table("guide", *names, f"top-1 minus {name}", f"NLL minus {name}")
    for guide, runs in found.items():
        cells = [guide]
        for measure, digits in COLUMNS.items():
            values = [measured[measure] for measured in runs.values() if measure in measured]
            cells.append(f"{statistics.mean(values):.{digits}f}" if values else "")
        for measure in ("top1", "nll"):
            values, others = (
                {seed: measured[measure] for seed, measured in of.items()}
                for of in (runs, baseline)
            )
            difference = paired_difference(values, others)
            mark = "\\*" if difference.is_distinguishable else ""
            digits = COLUMNS[measure]
            cells.append(f"{difference.mean:+.{digits}f} ± {difference.margin:.{digits}f}{mark}")
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
