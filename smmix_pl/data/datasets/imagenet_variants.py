"""Sets that test ImageNet models elsewhere: -A, -R, -V2, -Sketch, -O, and the ReaL labels.

They have no training part and number their classes as ImageNet does. Where a set covers some of the
classes only, `class_subset` tells the model which; its protocol ignores the model's other outputs.
"""

import json
import pkgutil
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from smmix_pl.data.datamodule import Images, Split
from smmix_pl.data.datasets.imagenet import WORDNET_IDS, ImageNet, readable
from smmix_pl.data.file_data import FileData, LabeledImages
from smmix_pl.data.io.file_lists import Samples, folder_samples, unpacked
from smmix_pl.data.transforms import Transform
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError


class ImageNetVariant(FileData):
    """Class folders for testing alone; ``root`` holds the folder that the archive unpacks to."""

    trainable = False
    folder_name: ClassVar[str]

    def find_classes(self) -> list[str]:
        """ImageNet's classes in words."""
        self.folder = unpacked(self.root, self.folder_name)
        return readable(WORDNET_IDS)

    def samples(self, split: Split) -> Samples:
        """All images, for test and validation."""
        numbers = self.class_subset or list(range(len(WORDNET_IDS)))
        found = folder_samples(self.folder, [self.folder_of(number) for number in numbers])
        return [(source, numbers[label]) for source, label in found]

    def folder_of(self, number: int) -> str:
        """The folder of a class."""
        return WORDNET_IDS[number]


class ImageNetA(ImageNetVariant):
    """ImageNet-A (Hendrycks et al., 2021): 7,500 photographs that ResNet-50 gets wrong.

    ``root`` holds ``imagenet-a/`` of 200 class folders. Arguments: see `ImageData`.
    """

    folder_name = "imagenet-a"
    sizes = Sizes(0, 7500, 7500)

    def find_classes(self) -> list[str]:
        """ImageNet's classes; 200 of them are tested."""
        self.class_subset = timm_indices("imagenet_a_indices.txt")
        return super().find_classes()


class ImageNetR(ImageNetVariant):
    """ImageNet-R (Hendrycks et al., 2021): 30,000 renditions: art, cartoons, toys and others.

    ``root`` holds ``imagenet-r/`` of 200 class folders. Arguments: see `ImageData`.
    """

    folder_name = "imagenet-r"
    sizes = Sizes(0, 30_000, 30_000)

    def find_classes(self) -> list[str]:
        """ImageNet's classes; 200 of them are tested."""
        self.class_subset = timm_indices("imagenet_r_indices.txt")
        return super().find_classes()


class ImageNetSketch(ImageNetVariant):
    """ImageNet-Sketch (Wang et al., 2019): 50,889 drawings.

    ``root`` holds ``sketch/`` of 1,000 class folders. Arguments: see `ImageData`.
    """

    folder_name = "sketch"
    sizes = Sizes(0, 50_889, 50_889)


class ImageNetV2(ImageNetVariant):
    """ImageNet-V2 (Recht et al., 2019): 10,000 new images, gathered as the validation set was.

    ``root`` holds ``imagenetv2-<variant>-format-val/`` of class folders ``0`` to ``999``.

    Args:
        variant: How images were chosen; papers report ``matched-frequency``.
        **options: See `ImageData`.
    """

    sizes = Sizes(0, 10_000, 10_000)

    def __init__(
        self,
        variant: Literal["matched-frequency", "threshold0.7", "top-images"] = "matched-frequency",
        **options: Any,
    ) -> None:
        self.variant = variant  # find_classes, which the base calls, needs it
        super().__init__(**options)

    def find_classes(self) -> list[str]:
        """ImageNet's classes in words."""
        self.folder = unpacked(self.root, f"imagenetv2-{self.variant}-format-val")
        return readable(WORDNET_IDS)

    def folder_of(self, number: int) -> str:
        """The number itself."""
        return str(number)


class ImageNetO(ImageNetVariant):
    """ImageNet-O (Hendrycks et al., 2021): 2,000 images of no ImageNet class.

    Tells how well confidence finds them among ImageNet's own validation images of the 200 classes
    that they are mistaken for, whose names their folders bear. ``root`` holds ``imagenet-o/`` and
    ImageNet's ``val/`` of class folders. Outliers have the class -1. Arguments: see `ImageData`.
    """

    folder_name = "imagenet-o"
    has_outliers = True

    def find_classes(self) -> list[str]:
        """ImageNet's classes; those named by a folder are tested."""
        names = super().find_classes()
        folders = {path.name for path in self.folder.iterdir() if path.is_dir()}
        self.class_subset = [n for n, wordnet_id in enumerate(WORDNET_IDS) if wordnet_id in folders]
        return names

    def samples(self, split: Split) -> Samples:
        """Validation images of the classes in question, then the outliers."""
        outliers = [(source, -1) for source, _ in super().samples(split)]
        inside = set(self.class_subset or [])
        known = folder_samples(self.root / "val", WORDNET_IDS)
        return [sample for sample in known if sample[1] in inside] + outliers


class ImageNetReaL(ImageNet):
    """ImageNet's validation images with the ReaL labels (Beyer et al., 2020).

    An image may show several classes, any of which is right; the 3,163 that show none are left out.
    Labels are ``(1000,)`` bool; see `smmix_pl.metrics.true_classes`. ``root`` as for `ImageNet`.
    Arguments: see `ImageData`.
    """

    trainable = False
    sizes = Sizes(0, 46_837, 46_837)

    def samples(self, split: Split) -> Samples:
        """The validation images that show an ImageNet class."""
        return [sample for sample in super().samples(split) if real_labels(str(sample[0]))]

    def images(self, split: Split, transform: Transform) -> Images:
        """Images with all their classes."""
        return RealImages(self.checked_samples(split), transform, self.cache)

    def _find_folders(self) -> list[str]:
        return WORDNET_IDS


class RealImages(LabeledImages):
    """Images whose label is every class that is right."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """One image and its classes, ``(1000,)`` bool."""
        image, _ = super().__getitem__(index)
        right: Tensor = torch.zeros(len(WORDNET_IDS), dtype=torch.bool)
        right[real_labels(str(self.samples[index][0]))] = True
        return image, right


def real_labels(name: str) -> list[int]:
    """The classes that a validation image shows, by the number in its name.

    Raises:
        InputError: The name is not one of ImageNet's.
    """
    match = re.search(r"ILSVRC2012_val_(\d{8})", Path(name).name)
    if match is None:
        raise InputError(
            f"{name} is not called ILSVRC2012_val_<number>.JPEG; ReaL labels go by that number"
        )
    return REAL_LABELS[int(match.group(1)) - 1]


def timm_indices(file: str) -> list[int]:
    """Class numbers from one of timm's index files."""
    return [int(line) for line in _timm_info(file).split()]


def _timm_info(file: str) -> str:
    return (pkgutil.get_data("timm.data", f"_info/{file}") or b"").decode()


REAL_LABELS: list[list[int]] = json.loads(_timm_info("imagenet_real_labels.json"))
"""Of each validation image, in the order of their names."""
