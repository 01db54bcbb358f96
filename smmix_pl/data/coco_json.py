"""COCO-format annotations: images and instances of a JSON file, and their masks."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

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


def read_coco(file: Path) -> tuple[list[str], list[CocoImage]]:
    """Return the category names in the order of their ids, and the images.

    Raises:
        InputError: The file is missing or not in COCO's format, or an instance is invalid.
    """
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
            images[entry["image_id"]].instances.append(_instance(entry, numbers, file))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file. Set data.annotations.") from error
    except InputError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{file}: not in COCO's format ({reason}). Export it again.") from error
    if len(categories) > MAX_CATEGORIES:
        raise InputError(
            f"{file}: {len(categories):,} categories, but masks hold at most {MAX_CATEGORIES}. "
            "Merge categories."
        )
    return [str(entry["name"]) for entry in categories], list(images.values())


def _instance(entry: dict[str, Any], numbers: dict[Any, int], file: Path) -> Instance:
    place = f"{file}: annotation {entry.get('id')}"
    if entry["category_id"] not in numbers:
        raise InputError(
            f"{place} has category {entry['category_id']}, which is not listed. Add it to "
            "categories."
        )
    left, top, width, height = map(float, entry["bbox"])
    if width <= 0 or height <= 0:
        raise InputError(f"{place} has a box without area, {entry['bbox']}. Fix or remove it.")
    segmentation = entry.get("segmentation")
    for polygon in segmentation if isinstance(segmentation, list) else ():
        if len(polygon) < 6 or len(polygon) % 2:
            raise InputError(
                f"{place} has a polygon of {len(polygon) / 2:g} points, but at least 3 are needed. "
                "Fix or remove it."
            )
    if isinstance(segmentation, dict) and not isinstance(segmentation.get("counts"), list):
        raise InputError(
            f"{place} has a compressed mask. Export polygons or uncompressed runs (counts as a "
            "list)."
        )
    box = (left, top, left + width, top + height)
    area = float(entry.get("area", width * height))
    is_crowd = bool(entry.get("iscrowd"))
    return Instance(numbers[entry["category_id"]], box, segmentation, is_crowd, area)
