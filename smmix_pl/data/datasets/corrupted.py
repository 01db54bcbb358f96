"""Corrupted test sets: ImageNet-C, CIFAR-10-C, CIFAR-100-C (Hendrycks and Dietterich, 2019)."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset

from smmix_pl.data.datamodule import ImageData, Images, Split
from smmix_pl.data.datasets.cifar import CIFAR10, CIFAR10_CLASSES, CIFAR100, CIFAR100_CLASSES
from smmix_pl.data.datasets.imagenet import WORDNET_IDS, readable
from smmix_pl.data.file_data import LabeledImages
from smmix_pl.data.io.file_lists import folder_samples, incomplete
from smmix_pl.data.io.images import existing_folder, read_array
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError, did_you_mean

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's top-1 error on each corruption of ImageNet-C, mean over severities, which the mean
corruption error is relative to; from the authors' repository hendrycks/robustness."""

CORRUPTIONS = tuple(ALEXNET_ERRORS)
"""The 15 that papers report; the archives hold four more, for tuning."""

EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")


class Corrupted(ImageData):
    """A test set in many corruptions and severities, one after the other.

    Args:
        corruptions: Which; null takes the 15 that papers report.
        severities: Which, 1 to 5.
        **options: See `ImageData`.
    """

    trainable = False
    reference_errors: ClassVar[dict[str, float] | None] = None
    """What the mean corruption error is relative to, where the protocol says so."""

    def __init__(
        self,
        corruptions: list[str] | None = None,
        severities: tuple[int, ...] = (1, 2, 3, 4, 5),
        **options: Any,
    ) -> None:
        self.corruptions = list(corruptions or CORRUPTIONS)
        self.severities = severities
        for name in self.corruptions:
            if name not in CORRUPTIONS + EXTRA:
                hint = did_you_mean(name, CORRUPTIONS + EXTRA)
                raise InputError(f"data.corruptions has {name!r}, which is unknown; {hint}")
        if not severities or not set(severities) <= {1, 2, 3, 4, 5}:
            raise InputError(f"data.severities is {list(severities)}; they are 1 to 5")
        super().__init__(**options)
        if self.bad_images == "skip":
            raise InputError(
                "data.bad_images cannot be skip on corrupted sets, whose images are told apart by "
                "their place; set it to stop"
            )

    @property
    def test_names(self) -> list[tuple[str, int]]:
        """Corruption and severity of each part of the test set, in order."""
        return [(name, severity) for name in self.corruptions for severity in self.severities]

    @property
    def test_ends(self) -> list[int]:
        """Where each part of the test set ends."""
        joined: Any = self._sets["test"]
        return list(joined.cumulative_sizes)

    @abstractmethod
    def corrupted(self, corruption: str, severity: int, transform: Transform) -> Images:
        """The test set under one corruption.

        Raises:
            InputError: It is not there.
        """

    def images(self, split: Split, transform: Transform) -> Images:
        """All of them, one after the other."""
        return Joined([self.corrupted(*name, transform) for name in self.test_names])


class Joined(ConcatDataset[Any]):
    """Data sets one after the other, with their labels."""

    @property
    def targets(self) -> list[int]:
        """Class numbers."""
        sets: list[Any] = self.datasets
        return [label for part in sets for label in np.asarray(part.targets).tolist()]


class ImageNetC(Corrupted):
    """ImageNet-C: 50,000 validation images, 224 x 224, under 15 corruptions of 5 severities.

    ``root`` holds ``<corruption>/<severity>/<class>/*.JPEG``, as the archives unpack side by side.
    Images are cropped already: ``eval_transform.crop_ratio`` is 1. Arguments: see `Corrupted`.
    """

    reference_errors = ALEXNET_ERRORS

    def find_classes(self) -> list[str]:
        """ImageNet's classes in words."""
        existing_folder(self.root)
        return readable(WORDNET_IDS)

    def corrupted(self, corruption: str, severity: int, transform: Transform) -> Images:
        """The class folders of one corruption and severity."""
        folder = self.root / corruption / str(severity)
        if not folder.is_dir():
            raise incomplete(self.root, f"{corruption}/{severity}/")
        return LabeledImages(folder_samples(folder, WORDNET_IDS), transform, self.cache)


class CIFAR10C(Corrupted):
    """CIFAR-10-C: the 10,000 test images under 19 corruptions of 5 severities.

    ``root`` holds ``CIFAR-10-C/`` with ``labels.npy`` and ``<corruption>.npy``, 10,000 images of
    each severity one after the other. Arguments: see `Corrupted`.
    """

    own_mean, own_std = CIFAR10.own_mean, CIFAR10.own_std
    folder_name: ClassVar[str] = "CIFAR-10-C"
    class_words: ClassVar[str] = CIFAR10_CLASSES

    def find_classes(self) -> list[str]:
        """The classes in their official order."""
        return self.class_words.split()

    def corrupted(self, corruption: str, severity: int, transform: Transform) -> Images:
        """A fifth of one corruption's file."""
        pixels = read_array(self.root / self.folder_name / f"{corruption}.npy")
        labels = read_array(self.root / self.folder_name / "labels.npy")
        if len(pixels) != len(labels) or len(pixels) % 5:
            raise InputError(
                f"{self.root / self.folder_name} has {len(pixels)} images of {corruption} and "
                f"{len(labels)} labels, where both are five times the test set; unpack it again"
            )
        each = len(pixels) // 5
        part = slice((severity - 1) * each, severity * each)
        return ArrayImages(pixels[part], labels[part], transform)


class CIFAR100C(CIFAR10C):
    """CIFAR-100-C, in ``CIFAR-100-C/``; as `CIFAR10C`."""

    own_mean, own_std = CIFAR100.own_mean, CIFAR100.own_std
    folder_name = "CIFAR-100-C"
    class_words = CIFAR100_CLASSES


class ArrayImages(Dataset[Any]):
    """Images in an array.

    Args:
        pixels: uint8 ``(n, H, W, 3)``.
        labels: ``(n,)``.
        transform: From a Pillow image to a tensor.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Transform) -> None:
        self.pixels, self.transform = pixels, transform
        self.targets: list[int] = np.asarray(labels).astype(int).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(np.array(self.pixels[index]))), self.targets[index]
