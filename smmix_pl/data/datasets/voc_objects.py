"""PASCAL VOC 2012, by the largest object of each image."""

import xml.etree.ElementTree as ET
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from smmix_pl.checks import one_of
from smmix_pl.data.base import Split
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, dataset_folder, read_lines
from smmix_pl.data.objects import VOID, Annotation, Box, ObjectData, read_mask
from smmix_pl.errors import InputError

CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


class VOCObjects(ObjectData):
    """PASCAL VOC 2012 (Everingham et al., 2010): 20 categories, boxes, and masks.

    The class of an image is the category of its largest object. `root` holds
    `VOCdevkit/VOC2012/`.

    Args:
        image_set: `Segmentation` for the images with masks (1,464 for training, 1,449 for test), or
            `Main` for all images, with boxes only.
        test: List of the test images: `val`, `train`, or `trainval`.
        **options: See `ImageData`.
    """

    archives = (
        Archive(
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            gives="VOCdevkit",
        ),
    )
    class_count = len(CATEGORIES)

    def __init__(
        self,
        image_set: Literal["Segmentation", "Main"] = "Segmentation",
        test: Literal["val", "train", "trainval"] = "val",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        one_of("data.image_set", image_set, ("Segmentation", "Main"))
        one_of("data.test", test, ("val", "train", "trainval"))
        self.image_set, self.test_list = image_set, test

    def find_classes(self) -> list[str]:
        """Return the categories."""
        _ = self._folder  # the names are constant, but the files must exist
        return list(CATEGORIES)

    def samples(self, split: Split) -> Samples:
        """Return the images of the list of a split."""
        found: Samples = []
        for name in self._names(split):
            largest = max(self._objects(name), key=lambda one: _area(one[1]))
            found.append((self._image(name), CATEGORIES.index(largest[0])))
        return found

    def annotations(self) -> list[Annotation]:
        """Return boxes and, of images with masks, masks."""
        classes = {value: value for value in (*range(len(CATEGORIES) + 1), VOID)}
        found = []
        for name in self._names("test"):
            mask = self._folder / "SegmentationClass" / f"{name}.png"
            read = partial(read_mask, mask, classes) if self.image_set == "Segmentation" else None
            source = str(mask if read else self._xml(name))
            boxes = [box for _, box in self._objects(name)]
            found.append(Annotation(self._image(name), source, boxes, read))
        return found

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "VOCdevkit", flat="VOC2012") / "VOC2012"

    def _names(self, split: Split) -> list[str]:
        part = "train" if split == "train" else self.test_list
        lines = read_lines(self._folder / "ImageSets" / self.image_set / f"{part}.txt")
        return [line.strip() for line in lines if line.strip()]

    def _image(self, name: str) -> str:
        return str(self._folder / "JPEGImages" / f"{name}.jpg")

    def _xml(self, name: str) -> Path:
        return self._folder / "Annotations" / f"{name}.xml"

    def _objects(self, name: str) -> list[tuple[str, Box]]:
        """Return category and box of each object; the file counts pixels from 1, ends included."""
        file = self._xml(name)
        try:
            objects = [
                (str(one.findtext("name")), _box(one)) for one in ET.parse(file).iter("object")
            ]
        except (OSError, ET.ParseError, TypeError, ValueError) as error:
            raise InputError(
                f"{file}: not readable as an annotation of VOC ({error}). Unpack the archive again."
            ) from error
        unknown = {category for category, _ in objects} - set(CATEGORIES)
        if unknown or not objects:
            what = (
                f"category {unknown.pop()!r}, which VOC does not have" if unknown else "no object"
            )
            raise InputError(f"{file}: has {what}. Unpack the archive again.")
        return objects


def _box(entry: ET.Element) -> Box:
    left, top, right, bottom = (
        float(str(entry.findtext(f"bndbox/{side}"))) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return left - 1, top - 1, right, bottom


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
