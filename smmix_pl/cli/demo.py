"""SMMix, CutMix and Mixup on your own images, with a trained model; one PNG.

    python -m smmix_pl.cli.demo IMAGES --checkpoint FILE --output mixing.png

Each image is mixed with one from the other end of the folder.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from smmix_pl.callbacks.training.mixed_images import displayable, mixing_examples
from smmix_pl.checks import in_range
from smmix_pl.cli.input_errors import WordsParser, report_input_errors
from smmix_pl.data.io.images import existing_folder
from smmix_pl.data.transforms import EvalTransform, eval_transform, normalize
from smmix_pl.data.unlabeled import ImageFiles
from smmix_pl.errors import InputError
from smmix_pl.mixing import CutMix, Mixer, Mixup
from smmix_pl.models import Backbone
from smmix_pl.models.weights import load_weights, open_checkpoint, settings_in
from smmix_pl.plots import mixing_figure

PEERS: dict[str, Mixer] = {"CutMix": CutMix(), "Mixup": Mixup()}


def main(words: Sequence[str] | None = None) -> None:
    """Draw; bad input is told in one sentence on stderr, with exit status 2."""
    parser = WordsParser(prog="python -m smmix_pl.cli.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("images", type=Path, help="folder of images, at least two")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a run of ours")
    parser.add_argument("--output", type=Path, default=Path("mixing.png"), help="PNG to write")
    parser.add_argument("--examples", type=int, default=4, help="rows, at most one for two images")
    parser.add_argument("--side", type=int, help="of the region in tokens (default: half the grid)")
    parser.add_argument("--seed", type=int, default=0, help="of CutMix's boxes and Mixup's shares")
    with report_input_errors():
        options = parser.parse_args(words)
        in_range("--seed", options.seed, 0)
        if options.output.suffix.lower() != ".png":
            raise InputError(f"--output is {options.output}; end it in .png")
        figure = demonstration(
            options.images, options.checkpoint, options.examples, options.side, options.seed
        )
        options.output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.output, dpi=120)
    print(options.output)


def demonstration(
    images: Path, checkpoint: Path, examples: int = 4, side: int | None = None, seed: int = 0
) -> Figure:
    """Each row: two images with what the model attends to, and what three mixers make of them.

    Args:
        images: Folder.
        checkpoint: Of `SMMixModule`; an average of weights in it is taken.
        examples: Rows.
        side: Region side in tokens; null for half of the grid.
        seed: Of CutMix's boxes and Mixup's shares.

    Raises:
        InputError: The folder has no two images, the checkpoint is not ours, or the region does not
            fit the grid.
    """
    backbone, settings = load_backbone(checkpoint)
    shortest = min(backbone.grid)
    side = shortest // 2 if side is None else side
    if not 0 < side < shortest:
        raise InputError(f"--side is {side}; the model's grid takes 1 to {shortest - 1} tokens")
    existing_folder(images, "IMAGES")
    files = ImageFiles(
        images, eval_transform(EvalTransform(crop_ratio=1.0), settings["image_size"])
    )
    rows = min(examples, len(files) // 2)
    if rows < 1:
        raise InputError(f"mixing takes two images; {images} has one, and --examples is {examples}")
    chosen = [*range(rows), *range(len(files) - rows, len(files))]
    batch = torch.stack([files[index][0] for index in chosen])
    names = [Path(files[index][1]).stem for index in chosen]
    batch = normalize(batch, settings["mean"], settings["std"])
    labels = torch.eye(len(batch))
    peers = {}
    for name, mixer in PEERS.items():
        mixed = mixer(batch, labels, backbone, np.random.default_rng(seed))
        peers[f"{name}\n{float(mixed.lam):.0%} of the target"] = mixed.images
    found = [
        example._replace(peers={title: images[row] for title, images in peers.items()})
        for row, example in enumerate(mixing_examples(backbone, batch, names, side))
    ]
    return mixing_figure([displayable(one, settings["mean"], settings["std"]) for one in found])


def load_backbone(checkpoint: Path) -> tuple[Backbone, dict[str, Any]]:
    """The backbone of a run's checkpoint, and the settings it was trained with.

    Raises:
        InputError: There is no such file, or it is not ours.
    """
    settings = settings_in(open_checkpoint(checkpoint), checkpoint)
    size = tuple(settings["image_size"])
    backbone = Backbone(
        settings["backbone"],
        settings["num_classes"],
        size,
        token_head=settings.get("token_head", "own"),
        attention=settings.get("attention") or "tokens",
        model_args=settings.get("backbone_args"),
    )
    load_weights(backbone, checkpoint)
    kept = {"image_size": size} | {name: tuple(settings[name]) for name in ("mean", "std")}
    return backbone.eval(), kept


if __name__ == "__main__":
    main()
