"""Test sets for ImageNet models: ImageNet-A, -R, -V2, -Sketch, -O, and the ReaL labels.

They have no training split and use ImageNet's class indices. If a dataset covers only some classes,
`class_subset` lists them, and its protocol ignores the other outputs of the model.
"""

import json
import pkgutil
import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datasets.imagenet import WORDNET_IDS, ImageNet, readable_names
from smmix_pl.data.file_data import FileData, LabeledImages
from smmix_pl.data.io.file_lists import Samples, dataset_folder, folder_samples, subfolders
from smmix_pl.data.transforms import Transform
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError


def timm_indices(file: str) -> list[int]:
    """Return the class indices in one of timm's index files."""
    return [int(line) for line in _timm_info(file).split()]


def _timm_info(file: str) -> str:
    return (pkgutil.get_data("timm.data", f"_info/{file}") or b"").decode()


class ImageNetVariant(FileData):
    """Class folders for testing only. `root` holds the folder that the archive unpacks to."""

    trainable = False
    class_count = 1000
    folder_name: ClassVar[str]

    def find_classes(self) -> list[str]:
        """Return ImageNet's classes in words."""
        _ = self._folder  # the names are constant, but the files must exist
        return readable_names(WORDNET_IDS)

    def samples(self, split: Split) -> Samples:
        """Return all images, for test and validation."""
        numbers = self.class_subset or list(range(len(WORDNET_IDS)))
        found = folder_samples(self._folder, [self.folder_of(number) for number in numbers])
        return [(source, numbers[label]) for source, label in found]

    def folder_of(self, number: int) -> str:
        """Return the folder name of a class."""
        return WORDNET_IDS[number]

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, self.folder_name)


class ImageNetA(ImageNetVariant):
    """ImageNet-A (Hendrycks et al., 2021): 7,500 photographs misclassified by ResNet-50.

    `root` holds `imagenet-a/` with 200 class folders. Arguments: see `ImageData`.
    """

    folder_name = "imagenet-a"
    class_subset = timm_indices("imagenet_a_indices.txt")
    sizes = Sizes(0, 7500, 7500)


class ImageNetR(ImageNetVariant):
    """ImageNet-R (Hendrycks et al., 2021): 30,000 renditions, such as art, cartoons, and toys.

    `root` holds `imagenet-r/` with 200 class folders. Arguments: see `ImageData`.
    """

    folder_name = "imagenet-r"
    class_subset = timm_indices("imagenet_r_indices.txt")
    sizes = Sizes(0, 30_000, 30_000)


class ImageNetSketch(ImageNetVariant):
    """ImageNet-Sketch (Wang et al., 2019): 50,889 drawings.

    `root` holds `sketch/` with 1,000 class folders. Arguments: see `ImageData`.
    """

    folder_name = "sketch"
    sizes = Sizes(0, 50_889, 50_889)


class ImageNetV2(ImageNetVariant):
    """ImageNet-V2 (Recht et al., 2019): 10,000 new images, collected like the validation set.

    `root` holds `imagenetv2-<variant>-format-val/` with class folders `0` to `999`.

    Args:
        variant: How images were selected; papers report `matched-frequency`.
        **options: See `ImageData`.
    """

    sizes = Sizes(0, 10_000, 10_000)

    def __init__(
        self,
        variant: Literal["matched-frequency", "threshold0.7", "top-images"] = "matched-frequency",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.variant = variant

    def folder_of(self, number: int) -> str:
        """Return the index itself."""
        return str(number)

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, f"imagenetv2-{self.variant}-format-val")


class ImageNetO(ImageNetVariant):
    """ImageNet-O (Hendrycks et al., 2021): 2,000 images of no ImageNet class.

    Measures how well low confidence separates them from ImageNet's own validation images of the 200
    classes they are confused with, which name their folders. `root` holds `imagenet-o/` and
    ImageNet's `val/` with class folders. Outliers have the label -1. Arguments: see `ImageData`.
    """

    folder_name = "imagenet-o"
    has_outliers = True

    def find_classes(self) -> list[str]:
        """Return ImageNet's classes, and restrict evaluation to those that name a folder."""
        folders = set(subfolders(self._folder))
        self.class_subset = [n for n, wordnet_id in enumerate(WORDNET_IDS) if wordnet_id in folders]
        return super().find_classes()

    def samples(self, split: Split) -> Samples:
        """Return validation images of the evaluated classes, then the outliers."""
        evaluated = self.evaluated_classes
        outliers = [(source, -1) for source, _ in super().samples(split)]
        known = folder_samples(self.root / "val", WORDNET_IDS)
        return [sample for sample in known if sample[1] in evaluated] + outliers


class ImageNetReaL(ImageNet):
    """ImageNet's validation images with the ReaL labels (Beyer et al., 2020).

    An image may show several classes, and any of them is correct. The 3,163 images that show none
    are excluded. Labels are `(1000,)` bool; see `smmix_pl.metrics.true_classes`. `root` as for
    `ImageNet`. Arguments: see `ImageData`.
    """

    trainable = False
    class_count = 1000
    sizes = Sizes(0, 46_837, 46_837)

    def samples(self, split: Split) -> Samples:
        """Return the validation images that show an ImageNet class."""
        return [sample for sample in super().samples(split) if real_labels(str(sample[0]))]

    def images(self, split: Split, transform: Transform) -> Images:
        """Open the images with all their classes."""
        return RealImages(self.checked_samples(split), transform, self.cache == "host")

    @cached_property
    def folders(self) -> list[str]:
        """Names of the class folders, in the order of class indices."""
        return WORDNET_IDS


class RealImages(LabeledImages):
    """Images labeled with every class that is correct."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return one image and its classes, `(1000,)` bool."""
        image, _ = super().__getitem__(index)
        correct: Tensor = torch.zeros(len(WORDNET_IDS), dtype=torch.bool)
        correct[real_labels(str(self.samples[index][0]))] = True
        return image, correct


def real_labels(name: str) -> list[int]:
    """Return the classes that a validation image shows, by the number in its name.

    Raises:
        InputError: The name is not one of ImageNet's.
    """
    match = re.search(r"ILSVRC2012_val_(\d{8})", Path(name).name)
    if match is None:
        raise InputError(
            f"{name}: name is not ILSVRC2012_val_<number>.JPEG, which ReaL labels refer to. Use "
            "the original file names."
        )
    return REAL_LABELS[int(match.group(1)) - 1]


REAL_LABELS: list[list[int]] = json.loads(_timm_info("imagenet_real_labels.json"))
"""Classes of each validation image, in the order of file names."""
