"""COCO-format annotations: images and instances of a JSON file, and their masks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageDraw

from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.objects import VOID, Box
from smmix_pl.errors import InputError

MAX_CATEGORIES = VOID - 1
"""Masks have 8 bits."""


@dataclass(frozen=True)
class Instance:
    """One object.

    Attributes:
        category: Index of its category, from 0.
        box: Its box.
        segmentation: Polygons, an uncompressed run-length encoding, or nothing.
        is_crowd: Group of objects, whose pixels are void.
        area: Its area in pixels, that of the box if the file has none.
    """

    category: int
    box: Box
    segmentation: Any
    is_crowd: bool
    area: float

    def draw(self, mask: Image.Image, value: int) -> None:
        """Fill the object in a mask: its polygons or runs, or its box if it has neither."""
        pen = ImageDraw.Draw(mask)
        if isinstance(self.segmentation, dict):
            runs = self.segmentation["counts"]
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # column by column
            shape = self.segmentation["size"][::-1]
            mask.paste(value, mask=Image.fromarray(inside.reshape(shape).T))
        for polygon in self.segmentation if isinstance(self.segmentation, list) else ():
            pen.polygon(polygon, fill=value)
        if not self.segmentation:
            pen.rectangle(self.box, fill=value)


@dataclass(frozen=True)
class CocoImage:
    """One image with its instances.

    Attributes:
        name: File name.
        size: Width and height in pixels.
        instances: Its objects in the order of the file.
    """

    name: str
    size: tuple[int, int]
    instances: list[Instance] = field(default_factory=list)

    @property
    def objects(self) -> list[Instance]:
        """The instances that are one object."""
        return [instance for instance in self.instances if not instance.is_crowd]

    def class_mask(self) -> Image.Image:
        """Return the mask of category indices plus 1. Small objects cover large ones."""
        mask = Image.new("L", self.size)
        for instance in sorted(self.instances, key=lambda one: (not one.is_crowd, -one.area)):
            instance.draw(mask, VOID if instance.is_crowd else instance.category + 1)
        return mask

    @property
    def largest(self) -> Instance:
        """The largest object."""
        return max(self.objects, key=lambda one: one.area)


@dataclass(frozen=True)
class CocoFiles:
    """Folder of images and JSON file of each split.

    Attributes:
        root: Folder of the dataset.
        folders: Folder of each split, relative to root.
        annotations: JSON file of a split, relative to root. `{split}` stands for the name of its
            folder.
    """

    root: Path
    folders: Mapping[str, str]
    annotations: str

    def json(self, split: str) -> Path:
        """Return the JSON file of a split."""
        return self.root / self.annotations.format(split=self.folders[split])

    def file(self, split: str, image: CocoImage) -> Path:
        """Return the file of an image."""
        return self.root / self.folders[split] / image.name

    def images(self, split: str, class_names: list[str]) -> list[CocoImage]:
        """Return the images of a split.

        Raises:
            InputError: The JSON file is invalid, has other categories or no object, or a file is
                missing.
        """
        file = self.json(split)
        names, images = read_coco(file)
        if names != class_names:
            raise InputError(
                f"{file}: its categories differ from those of the other splits. Use the same "
                "categories in all splits."
            )
        for image in images:
            if not self.file(split, image).is_file():
                raise InputError(
                    f"{file}: lists {image.name}, which is missing in "
                    f"{self.root / self.folders[split]}. Set data.{split} or add the image."
                )
        if not any(image.objects for image in images):
            raise InputError(f"{file}: has no object. Check data.annotations.")
        return images


def read_coco(file: Path) -> tuple[list[str], list[CocoImage]]:
    """Return the category names in the order of their ids, and the images.

    Boxes with a side of 0 are excluded: COCO's training set has two.

    Raises:
        InputError: The file is missing or not in COCO's format, or an instance is invalid.
    """
    degenerate = []
    try:
        content = json.loads(file.read_text())
        categories = sorted(content["categories"], key=lambda entry: int(entry["id"]))
        numbers = {entry["id"]: number for number, entry in enumerate(categories)}
        images = {
            entry["id"]: CocoImage(entry["file_name"], (entry["width"], entry["height"]))
            for entry in content["images"]
        }
        for entry in content["annotations"]:
            if entry["image_id"] not in images:
                raise InputError(
                    f"{file}: annotation {entry.get('id')} is of image {entry['image_id']}, which "
                    "is not listed. Add the image or remove the annotation."
                )
            image = images[entry["image_id"]]
            instance = _instance(entry, numbers, image.size, file)
            if instance is None:
                degenerate.append(entry.get("id"))
            else:
                image.instances.append(instance)
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file. Set data.annotations.") from error
    except InputError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{file}: not in COCO's format ({reason}). Export it again.") from error
    if degenerate:
        rank_zero_warn(
            f"{file}: {counted(len(degenerate), 'box')} without area excluded, such as that of "
            f"annotation {degenerate[0]}"
        )
    if len(categories) > MAX_CATEGORIES:
        raise InputError(
            f"{file}: {len(categories):,} categories, but masks hold at most {MAX_CATEGORIES}. "
            "Merge categories."
        )
    return [str(entry["name"]) for entry in categories], list(images.values())


def _instance(
    entry: dict[str, Any], numbers: dict[Any, int], size: tuple[int, int], file: Path
) -> Instance | None:
    """Return the instance of an annotation, or None if its box has a side of 0."""
    place = f"{file}: annotation {entry.get('id')}"
    if entry["category_id"] not in numbers:
        raise InputError(
            f"{place} has category {entry['category_id']}, which is not listed. Add it to "
            "categories."
        )
    left, top, width, height = map(float, entry["bbox"])
    if width < 0 or height < 0:
        raise InputError(
            f"{place} has a box without area, {entry['bbox']}. Boxes are left, top, width, and "
            "height: fix or remove it."
        )
    box = (left, top, left + width, top + height)
    # annotators' boxes may exceed the image by a rounded pixel
    inside = left >= -1 and top >= -1 and box[2] <= size[0] + 1 and box[3] <= size[1] + 1
    if not inside:  # or not a number
        raise InputError(
            f"{place} has the box {entry['bbox']} outside of its image of {size[0]} x {size[1]} "
            "pixels. Fix or remove it."
        )
    segmentation = entry.get("segmentation")
    _check_segmentation(segmentation, size, place)
    area = float(entry.get("area", width * height))
    is_crowd = bool(entry.get("iscrowd"))
    if not (width and height):
        return None
    return Instance(numbers[entry["category_id"]], box, segmentation, is_crowd, area)


def _check_segmentation(segmentation: Any, size: tuple[int, int], place: str) -> None:
    """Reject what is neither polygons within an image nor uncompressed runs that fill it."""
    if isinstance(segmentation, dict):
        _check_runs(segmentation, size, place)
    elif not isinstance(segmentation, list | None):
        raise InputError(
            f"{place} has a segmentation of type {type(segmentation).__name__}. Export polygons or "
            "uncompressed runs."
        )
    for polygon in segmentation if isinstance(segmentation, list) else ():
        if len(polygon) < 6 or len(polygon) % 2:
            raise InputError(
                f"{place} has a polygon of {len(polygon) / 2:g} points, but at least 3 are needed. "
                "Fix or remove it."
            )
        # drawing takes memory in proportion to the length of the outline
        if not np.abs(np.asarray(polygon, dtype=float)).max() <= 2 * max(size):
            raise InputError(
                f"{place} has a polygon far outside of its image of {size[0]} x {size[1]} pixels. "
                "Fix or remove it."
            )


def _check_runs(segmentation: dict[str, Any], size: tuple[int, int], place: str) -> None:
    runs = segmentation.get("counts")
    if not isinstance(runs, list):
        raise InputError(
            f"{place} has a compressed mask. Export polygons or uncompressed runs (counts as a "
            "list)."
        )
    fits = tuple(segmentation.get("size", ()))[::-1] == size and sum(runs) == size[0] * size[1]
    if not fits or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise InputError(
            f"{place} has runs that do not fill its image of {size[0]} x {size[1]} pixels. Export "
            "it again."
        )
