"""The images of `smmix attend`: attention by readout, windows, and mixes."""

from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor

from smmix_pl.data.transforms import EvalTransform, denormalize, eval_transform, normalize
from smmix_pl.data.unlabeled import ImageFiles
from smmix_pl.errors import InputError
from smmix_pl.mixing import CutMix, Mixup, Readout, SMMix
from smmix_pl.mixing.regions import least_attended, most_attended
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.timm_model import ImageSize, create_timm_model
from smmix_pl.models.weights import load_weights, open_checkpoint, settings_in
from smmix_pl.plots import AttendedImage, attention_figure
from smmix_pl.plots.mixing_figure import MixedImage, Window
from smmix_pl.reporting.html_report import image, page
from smmix_pl.runs.export_weights import load_trained

Pair = tuple[AttendedImage, AttendedImage]
Numbers = tuple[float, ...]
SHOWN: tuple[Readout, ...] = ("tokens", "class", "similarity")
"""Readouts that the page has room for."""


class Viewer(NamedTuple):
    """A model that looks at images, and the images that it expects.

    Attributes:
        name: Name of the model.
        backbones: The model in eval mode, once for each readout that it has.
        guide: Readout that guides the mixing.
        image_size: (height, width) in pixels.
        mean: Mean of the normalization.
        std: Standard deviation of the normalization.
    """

    name: str
    backbones: dict[Readout, Backbone]
    guide: Readout
    image_size: ImageSize
    mean: Numbers
    std: Numbers


def attended_pairs(
    images: Path, viewer: Viewer, pairs: int = 4, side: int | None = None, seed: int = 0
) -> list[Pair]:
    """Look at pairs of images, and mix each image with the other one of its pair.

    Args:
        images: Folder of images. File names are class names.
        viewer: The model.
        pairs: Number of pairs; fewer if the folder has fewer images.
        side: Region side in tokens. None uses half of the grid.
        seed: Seed of CutMix's boxes and Mixup's ratios.

    Raises:
        InputError: The folder has fewer than two images, or the region does not fit the grid.
    """
    shortest = min(viewer.backbones[viewer.guide].grid)
    side = shortest // 2 if side is None else side
    if not 0 < side < shortest:
        raise InputError(f"--side={side}: must be in [1, {shortest - 1}] tokens for this model.")
    transform = eval_transform(EvalTransform(crop_ratio=1.0), viewer.image_size)
    files = ImageFiles(images, transform, option="IMAGES")
    pairs = min(pairs, len(files) // 2)
    if pairs < 1:
        raise InputError(f"IMAGES={images}: mixing needs two images. Add one.")
    rng = np.random.default_rng(seed)
    found = []
    for index in range(pairs):
        (first, file), (second, other) = files[index], files[len(files) - 1 - index]
        batch = normalize(torch.stack((first, second)), viewer.mean, viewer.std)
        found.append(_attended(viewer, batch, (Path(file).stem, Path(other).stem), side, rng))
    return found


def _attended(
    viewer: Viewer, pair: Tensor, names: tuple[str, str], side: int, rng: np.random.Generator
) -> Pair:
    """Return both images of a pair `(2, 3, H, W)`, each as the target of the other."""
    guide, labels = viewer.backbones[viewer.guide], torch.eye(2)
    attention = {name: model.guide(pair).attention for name, model in viewer.backbones.items()}
    corners = {
        name: (least_attended(found, side).tolist(), most_attended(found, side).tolist())
        for name, found in attention.items()
    }
    mixed = {
        "SMMix": SMMix().mix_regions(pair, labels, guide, side, rng),
        "CutMix": CutMix()(pair, labels, guide, rng),
        "Mixup": Mixup()(pair, labels, guide, rng),
    }

    def window(corner: list[int]) -> Window:
        return corner[0], corner[1], side

    def seen(place: int) -> AttendedImage:
        return AttendedImage(
            name=names[place],
            partner=names[1 - place],
            image=denormalize(pair[place], viewer.mean, viewer.std),
            attention={name: found[place] for name, found in attention.items()},
            windows={
                name: (window(least[place]), window(most[place]))
                for name, (least, most) in corners.items()
            },
            guide=viewer.guide,
            mixed={
                mixer: MixedImage(
                    denormalize(made.images[place], viewer.mean, viewer.std),
                    (float(made.labels[place, place]), float(made.labels[place, 1 - place])),
                )
                for mixer, made in mixed.items()
            },
        )

    return seen(0), seen(1)


def html_page(pairs: list[Pair], viewer: Viewer) -> str:
    """Return the page, with one figure per pair."""
    height, width = viewer.image_size
    rows, columns = viewer.backbones[viewer.guide].grid
    facts = (
        f"{height} x {width} pixels, {rows} x {columns} tokens, {2 * len(pairs)} images. Mixing is "
        f"guided by the readout {viewer.guide}."
    )
    title = f"What {viewer.name} attends to"
    figures = [
        image(attention_figure(pair), f"{pair[0].name} and {pair[1].name}.") for pair in pairs
    ]
    return page(title, [f"<h1>{escape(title)}</h1><p class=soft>{facts}</p>", *figures])


def from_checkpoint(checkpoint: Path, readout: Readout | None) -> Viewer:
    """Return the model of a checkpoint.

    Args:
        checkpoint: Checkpoint of `SMMixModule`.
        readout: Readout that guides the mixing. None uses that of the checkpoint's run.

    Raises:
        InputError: The file is missing or not a checkpoint of `SMMixModule`, or its model does not
            have the readout.
    """
    trained = load_trained(checkpoint, crop_pct=None)
    settings = settings_in(open_checkpoint(checkpoint), checkpoint)
    guide = settings.get("guide")
    readout = readout or (guide.get("readout") if isinstance(guide, dict) else None)
    height, width = settings["image_size"]
    backbones = _by_readout(trained.model, (height, width))
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    guide = _guide(trained.name, backbones, readout)
    return Viewer(trained.name, backbones, guide, (height, width), mean, std)


def from_timm(
    model: str, weights: Path | None, image_size: int | None, readout: Readout | None
) -> Viewer:
    """Return a timm model.

    Args:
        model: Name of the model.
        weights: File of weights. None downloads timm's.
        image_size: Image side in pixels. None uses the size that the model was trained with.
        readout: Readout that guides the mixing. None uses the first that the model has.

    Raises:
        InputError: Unknown model, unsuitable image size, or unsuitable weights, or the model does
            not have the readout.
    """
    trained_with = getattr(timm.models.get_pretrained_cfg(model), "input_size", (3, 224, 224))
    size = (image_size, image_size) if image_size else (trained_with[1], trained_with[2])
    created, _ = create_timm_model(model, 1000, size, weights is None, {})
    backbones = _by_readout(created.eval(), size)
    guide = _guide(model, backbones, readout)
    if weights is not None:
        load_weights(backbones[guide], weights)
    expected = resolve_data_config(model=created)
    return Viewer(model, backbones, guide, size, expected["mean"], expected["std"])


def _by_readout(model: Any, image_size: ImageSize) -> dict[Readout, Backbone]:
    """Return the model once for each readout that it has; the weights are shared.

    Raises:
        InputError: It has none, so that it has no image tokens.
    """
    found: dict[Readout, Backbone] = {}
    for readout in SHOWN:
        config = GuideConfig(readout=readout)
        try:
            backbone = Backbone(model, image_size=image_size, token_head="shared", guide=config)
            found[readout] = backbone.eval()
        except InputError:
            if readout == "similarity" and not found:  # which needs the least of a model
                raise
    return found


def _guide(model: str, backbones: dict[Readout, Backbone], readout: Readout | None) -> Readout:
    first = next(iter(backbones))
    if readout is not None and readout not in backbones:
        raise InputError(
            f"--readout={readout}: {model} does not have it. Use {' or '.join(backbones)}."
        )
    return readout or first
