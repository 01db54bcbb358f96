"""The figure of `smmix demo`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from timm.data import resolve_data_config

from smmix_pl.callbacks.training.mixed_images import mixing_example
from smmix_pl.data.transforms import EvalTransform, eval_transform, normalize
from smmix_pl.data.unlabeled import ImageFiles
from smmix_pl.errors import InputError
from smmix_pl.mixing import CutMix, Mixup, Readout, SMMix
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.weights import load_weights, open_checkpoint, settings_in
from smmix_pl.plots import mixing_figure
from smmix_pl.plots.style import add_note

Numbers = tuple[float, ...]


class GuidingModel(NamedTuple):
    """A model whose attention guides, and the images that it expects.

    Attributes:
        name: Name of the model.
        backbone: The model, in eval mode.
        image_size: (height, width) in pixels.
        mean: Mean of the normalization.
        std: Standard deviation of the normalization.
    """

    name: str
    backbone: Backbone
    image_size: tuple[int, int]
    mean: Numbers
    std: Numbers


def demonstration(
    images: Path, guide: GuidingModel, examples: int = 4, side: int | None = None, seed: int = 0
) -> Figure:
    """Draw pairs of images with the model's attention, and what three mixers make of them.

    Args:
        images: Folder of images. File names are class names.
        guide: Model that provides the attention.
        examples: Number of rows.
        side: Region side in tokens. None uses half of the grid.
        seed: Seed of CutMix's boxes and Mixup's ratios.

    Raises:
        InputError: The folder has fewer than two images, or the region does not fit the grid.
    """
    backbone = guide.backbone
    shortest = min(backbone.grid)
    side = shortest // 2 if side is None else side
    if not 0 < side < shortest:
        raise InputError(f"--side={side}: must be in [1, {shortest - 1}] tokens for this model.")
    files = ImageFiles(
        images, eval_transform(EvalTransform(crop_ratio=1.0), guide.image_size), option="IMAGES"
    )
    rows = min(examples, len(files) // 2)
    if rows < 1:
        raise InputError(f"IMAGES={images}: mixing needs two images. Add one.")
    rng = np.random.default_rng(seed)
    drawn = []
    for row in range(rows):
        (target, first), (source, second) = files[row], files[len(files) - 1 - row]
        pair = normalize(torch.stack((target, source)), guide.mean, guide.std)
        labels = torch.eye(2)
        mixed = {
            "SMMix": SMMix().mix_regions(pair, labels, backbone, side, rng),
            "CutMix": CutMix()(pair, labels, backbone, rng),
            "Mixup": Mixup()(pair, labels, backbone, rng),
        }
        named = {mixer: (found, (0, 1)) for mixer, found in mixed.items()}
        names = (Path(first).stem, Path(second).stem)
        drawn.append(mixing_example(backbone, pair, names, named, guide.mean, guide.std))
    figure = mixing_figure(drawn)
    add_note(figure, f"{guide.name}, attention: {backbone.readout}, n = {2 * rows}")
    return figure


def from_checkpoint(checkpoint: Path) -> GuidingModel:
    """Return the model of a checkpoint.

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
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return GuidingModel(settings["backbone"], backbone.eval(), size, mean, std)


def from_timm(model: str, weights: Path | None, image_size: int, readout: Readout) -> GuidingModel:
    """Return a timm model.

    Args:
        model: Name of the model.
        weights: File of weights. None downloads timm's.
        image_size: Image side in pixels.
        readout: What the attention is read from.

    Raises:
        InputError: Unknown model, unsuitable image size, or unsuitable weights.
    """
    config = GuideConfig(readout=readout)
    backbone = Backbone(model, 1000, image_size, guide=config, pretrained=weights is None)
    if weights is not None:
        load_weights(backbone, weights)
    expected = resolve_data_config(model=backbone.model)
    size = (image_size, image_size)
    return GuidingModel(model, backbone.eval(), size, expected["mean"], expected["std"])
