"""The figure of `smmix demo`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from smmix_pl.callbacks.training.mixed_images import displayable, mixing_examples
from smmix_pl.data.transforms import EvalTransform, eval_transform, normalize
from smmix_pl.data.unlabeled import ImageFiles
from smmix_pl.errors import InputError
from smmix_pl.mixing import CutMix, Mixer, Mixup
from smmix_pl.models.backbone import Backbone, GuideConfig
from smmix_pl.models.weights import load_weights, open_checkpoint, settings_in
from smmix_pl.plots import mixing_figure

PEERS: dict[str, Mixer] = {"CutMix": CutMix(), "Mixup": Mixup()}


def demonstration(
    images: Path, checkpoint: Path, examples: int = 4, side: int | None = None, seed: int = 0
) -> Figure:
    """Draw pairs of images with the model's attention, and what three mixers make of them.

    Args:
        images: Folder of images.
        checkpoint: Checkpoint of `SMMixModule`. Averaged weights are used if it has them.
        examples: Number of rows.
        side: Region side in tokens. None uses half of the grid.
        seed: Seed of CutMix's boxes and Mixup's ratios.

    Raises:
        InputError: The folder has fewer than two images, the checkpoint is unsuitable, or the
            region does not fit the grid.
    """
    backbone, settings = load_backbone(checkpoint)
    shortest = min(backbone.grid)
    side = shortest // 2 if side is None else side
    if not 0 < side < shortest:
        raise InputError(f"--side={side}: must be in [1, {shortest - 1}] tokens for this model.")
    transform = eval_transform(EvalTransform(crop_ratio=1.0), settings["image_size"])
    files = ImageFiles(images, transform, option="IMAGES")
    rows = min(examples, len(files) // 2)
    if rows < 1:
        raise InputError(f"IMAGES={images}: mixing needs two images. Add one.")
    chosen = [*range(rows), *range(len(files) - rows, len(files))]
    pixels, paths = zip(*(files[index] for index in chosen), strict=True)
    names = [Path(path).stem for path in paths]
    batch = normalize(torch.stack(pixels), settings["mean"], settings["std"])
    labels = torch.eye(len(batch))
    peers = {}
    for name, mixer in PEERS.items():
        mixed = mixer(batch, labels, backbone, np.random.default_rng(seed))
        peers[f"{name}\n{float(mixed.lam):.0%} target"] = mixed.images
    found = [
        example._replace(peers={title: images[row] for title, images in peers.items()})
        for row, example in enumerate(mixing_examples(backbone, batch, names, side))
    ]
    return mixing_figure([displayable(one, settings["mean"], settings["std"]) for one in found])


def load_backbone(checkpoint: Path) -> tuple[Backbone, dict[str, Any]]:
    """Return the backbone of a checkpoint, and image size, mean, and std of its training.

    Raises:
        InputError: The file is missing or not a checkpoint of `SMMixModule`.
    """
    settings = settings_in(open_checkpoint(checkpoint), checkpoint)
    size = tuple(settings["image_size"])
    backbone = Backbone(
        settings["backbone"],
        settings["num_classes"],
        size,
        token_head=settings.get("token_head", "own"),
        guide=GuideConfig(readout=settings.get("guide", {}).get("readout")),
        model_args=settings.get("backbone_args"),
    )
    load_weights(backbone, checkpoint)
    kept = {"image_size": size} | {name: tuple(settings[name]) for name in ("mean", "std")}
    return backbone.eval(), kept
