"""Boxes and masks of objects, moved with their image through the evaluation's resize and crop."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.images import open_image
from smmix_pl.data.transforms import EvalTransform, eval_steps
from smmix_pl.errors import InputError

VOID = 255
"""Mask value of pixels without a label, which no metric counts."""
Box = tuple[float, float, float, float]
"""Left, top, right, and bottom edge in pixels from the top left corner of the image."""


@dataclass(frozen=True)
class Annotation:
    """Objects of one image file, in pixels of that file.

    Attributes:
        image: Image file.
        source: What the annotation was read from, for errors.
        boxes: Box of each object.
        mask: Reads the mask, a single-channel image: 0 background, 1 and above classes, 255 void.
    """

    image: str
    source: str
    boxes: Sequence[Box] = ()
    mask: Callable[[], Image.Image] | None = None


class Objects(NamedTuple):
    """Objects of one evaluation image, in its pixels.

    Attributes:
        boxes: Left, top, right, and bottom edges, clipped to the image, `(n, 4)` float32.
        mask: Class of each pixel, `(H, W)` uint8, or None if the dataset has no masks.
    """

    boxes: Tensor
    mask: Tensor | None


class ObjectData(FileData):
    """Base class of datasets that know where the objects are. Arguments: see `ImageData`."""

    @abstractmethod
    def annotations(self) -> list[Annotation]:
        """Return the objects of each test image, in the order of the test images.

        Raises:
            InputError: The lists are missing or damaged.
        """


def require_objects(data: ImageData, callback: str) -> ObjectData:
    """Return a datamodule whose test images have objects that belong to them by their place.

    Args:
        data: Datamodule of the run.
        callback: Name of the callback that needs the objects, for errors.

    Raises:
        InputError: The dataset has no objects, or images may be skipped.
    """
    if not isinstance(data, ObjectData):
        raise InputError(
            f"trainer.callbacks: {callback} does not support {type(data).__name__}, which has no "
            "boxes or masks. Use VOCObjects, COCOObjects, CUB, OxfordPets, or TinyImageNet, or "
            "remove it."
        )
    if data.bad_images == "skip":
        raise InputError(
            f"data.bad_images=skip: {callback} needs every image, because objects belong to images "
            "by their place. Set data.bad_images=stop."
        )
    return data


def visible_objects(
    annotation: Annotation, recipe: EvalTransform, size: tuple[int, int]
) -> Objects:
    """Return what an evaluation image shows of the objects. Boxes outside of it are dropped.

    Args:
        annotation: Objects of the image file.
        recipe: Settings that the image is prepared with.
        size: (H, W) of the prepared image.

    Raises:
        InputError: A box has no area or is outside of the file's image, or the mask has another
            size.
    """
    with open_image(annotation.image) as image:
        width, height = image.size
    _check_boxes(annotation, width, height)
    resize, crop, to_tensor = eval_steps(recipe, size, "nearest")
    resized = resize(Image.new("L", (width, height))).size
    boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
    boxes *= torch.tensor((resized[0] / width, resized[1] / height)).repeat(2)
    # torchvision's CenterCrop rounds the corner in the same way
    corner = [round((whole - part) / 2) for whole, part in zip(resized, size[::-1], strict=True)]
    boxes = (boxes - torch.tensor(corner).repeat(2)).clamp(min=0)
    boxes = boxes.minimum(torch.tensor(size[::-1]).repeat(2))
    visible = boxes[(boxes[:, :2] < boxes[:, 2:]).all(dim=1)]
    if annotation.mask is None:
        return Objects(visible, None)
    mask = annotation.mask()
    if mask.size != (width, height):
        raise InputError(
            f"{annotation.source}: mask of {mask.width} x {mask.height} pixels, but its image "
            f"{annotation.image} has {width} x {height}. Unpack both archives again."
        )
    return Objects(visible, to_tensor(crop(resize(mask)))[0])


def read_mask(file: Path, classes: Mapping[int, int]) -> Image.Image:
    """Read a mask of class indices.

    Args:
        file: Single-channel image, with or without a palette.
        classes: Class of each value in the file.

    Raises:
        InputError: The file is missing, has colors, or has another value.
    """
    if not file.is_file():
        raise InputError(f"{file}: mask is missing. Unpack the complete archive again.")
    with open_image(str(file)) as image:
        if image.mode not in ("L", "P"):
            raise InputError(
                f"{file}: mask in mode {image.mode}, but class indices in one channel are expected."
                " Convert its colors to indices."
            )
        values = np.array(image)
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        if value not in classes:
            raise InputError(
                f"{file}: value {value} in {count:,} pixels is neither a class nor void "
                f"({VOID}). Check that the mask belongs to this dataset."
            )
    table = np.full(256, VOID, dtype=np.uint8)
    table[list(classes)] = list(classes.values())
    return Image.fromarray(table[values])


def _check_boxes(annotation: Annotation, width: int, height: int) -> None:
    for left, top, right, bottom in annotation.boxes:
        place = f"{annotation.source}: box ({left:g}, {top:g}, {right:g}, {bottom:g})"
        if not (left < right and top < bottom):
            raise InputError(f"{place} of {annotation.image} has no area. Fix or remove it.")
        # annotators' boxes may exceed the image by a rounded pixel
        if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
            raise InputError(
                f"{place} is outside of its image {annotation.image}, which has {width} x {height} "
                "pixels. Fix or remove it."
            )
