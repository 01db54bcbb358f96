"""Photographs with one known object each, from COCO-format annotations or from masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from smmix_pl.data.coco_json import read_coco
from smmix_pl.data.transforms import normalize
from smmix_pl.errors import InputError

COVERED = (0.03, 0.5)
"""Fractions of the image between which its object is neither lost nor everything."""


@dataclass(frozen=True)
class Objects:
    """Images and their objects.

    Attributes:
        images: Normalized images, `(B, 3, S, S)`.
        masks: True on the object, `(B, S, S)` bool.
    """

    images: Tensor
    masks: Tensor


def load_objects(
    folder: Path, annotations: Sequence[Path], masks: Path | None, size: int
) -> Objects:
    """Read all images whose object covers a moderate fraction of them.

    Args:
        folder: Images, also in subfolders.
        annotations: COCO-format JSON files.
        masks: Folder of masks with the stems of the images, instead of annotations.
        size: Side in pixels to which images and masks are resized.

    Raises:
        InputError: No image has such an object.
    """
    files = {file.name: file for file in sorted(folder.rglob("*")) if file.is_file()}
    found = from_masks(files, masks) if masks else from_annotations(files, annotations)
    images, objects = [], []
    for file, mask in found:
        if COVERED[0] <= (np.asarray(mask) > 0).mean() <= COVERED[1]:
            photo = Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            images.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1))
            resized = mask.resize((size, size), Image.Resampling.NEAREST)
            objects.append(torch.from_numpy(np.array(resized) > 0))
    if len(images) < 2:
        raise InputError(
            f"--images={folder}: {len(images)} images have an object that covers "
            f"{COVERED[0]:.0%} to {COVERED[1]:.0%} of them. Check --annotations or --masks."
        )
    pixels = normalize(torch.stack(images), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return Objects(pixels, torch.stack(objects))


def from_masks(files: dict[str, Path], folder: Path) -> Iterator[tuple[Path, Image.Image]]:
    """Yield each image that has a mask, with its mask."""
    masks = {file.stem: file for file in sorted(folder.rglob("*.png"))}
    for file in files.values():
        if file.stem in masks and file != masks[file.stem]:
            yield file, Image.open(masks[file.stem]).convert("L")


def from_annotations(
    files: dict[str, Path], annotations: Sequence[Path]
) -> Iterator[tuple[Path, Image.Image]]:
    """Yield each annotated image, with the mask of its largest instance."""
    for annotation in annotations:
        for image in read_coco(annotation)[1]:
            if image.objects and image.name in files:
                mask = Image.new("L", image.size)
                image.largest.draw(mask, 255)
                yield files[image.name], mask
