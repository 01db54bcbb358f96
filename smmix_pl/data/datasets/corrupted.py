"""Corrupted test sets: ImageNet-C, CIFAR-10-C, CIFAR-100-C (Hendrycks and Dietterich, 2019)."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.datasets.cifar import CIFAR10, CIFAR10_CLASSES, CIFAR100, CIFAR100_CLASSES
from smmix_pl.data.datasets.imagenet import WORDNET_IDS, readable_names
from smmix_pl.data.file_data import LabeledImages
from smmix_pl.data.io.file_lists import folder_samples, incomplete
from smmix_pl.data.io.images import read_array
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
"""AlexNet's top-1 error on each corruption of ImageNet-C, averaged over severities. The mean
corruption error is relative to it. From the authors' repository hendrycks/robustness."""

CORRUPTIONS = tuple(ALEXNET_ERRORS)
"""The 15 corruptions that papers report. The archives hold four more, for tuning."""

EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")


class Corrupted(ImageData):
    """A test set under several corruptions and severities, concatenated.

    Args:
        corruptions: Names of corruptions; `null` uses the 15 that papers report.
        severities: Severities, 1 to 5.
        **options: See `ImageData`.
    """

    trainable = False
    reads_root = True
    reference_errors: ClassVar[dict[str, float] | None] = None
    """Reference errors of the mean corruption error, if the protocol uses any."""

    def __init__(
        self,
        corruptions: list[str] | None = None,
        severities: tuple[int, ...] = (1, 2, 3, 4, 5),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.corruptions = list(corruptions or CORRUPTIONS)
        self.severities = severities
        for name in self.corruptions:
            if name not in CORRUPTIONS + EXTRA:
                hint = did_you_mean(name, CORRUPTIONS + EXTRA)
                raise InputError(f"data.corruptions: unknown corruption {name!r}. {hint}")
        if not severities or not set(severities) <= {1, 2, 3, 4, 5}:
            raise InputError(f"data.severities={list(severities)}: must be in 1 to 5.")
        if self.bad_images == "skip":
            raise InputError(
                "data.bad_images=skip: not supported by corrupted datasets, which identify a "
                "corruption by the position of its images. Set data.bad_images=stop."
            )

    @property
    def test_names(self) -> list[tuple[str, int]]:
        """Corruption and severity of each part of the test set, in order."""
        return [(name, severity) for name in self.corruptions for severity in self.severities]

    @property
    def test_ends(self) -> list[int]:
        """End position of each part of the test set."""
        joined: Any = self._sets["test"]
        return list(joined.cumulative_sizes)

    @abstractmethod
    def corrupted(self, corruption: str, severity: int, transform: Transform) -> Images:
        """Open the test set under one corruption.

        Raises:
            InputError: It is missing.
        """

    def images(self, split: Split, transform: Transform) -> Images:
        """Open all corruptions and severities, concatenated."""
        return Joined([self.corrupted(*name, transform) for name in self.test_names])


class Joined(ConcatDataset[Any]):
    """Concatenated datasets with their labels."""

    @property
    def targets(self) -> list[int]:
        """Class indices."""
        sets: list[Any] = self.datasets
        return [label for part in sets for label in np.asarray(part.targets).tolist()]


class ImageNetC(Corrupted):
    """ImageNet-C: 50,000 validation images, 224 x 224, under 15 corruptions of 5 severities.

    `root` holds `<corruption>/<severity>/<class>/*.JPEG`, with all archives unpacked side by side.
    Images are already cropped: use `eval_transform.crop_ratio=1`. Arguments: see `Corrupted`.
    """

    class_count = 1000
    reference_errors = ALEXNET_ERRORS

    def find_classes(self) -> list[str]:
        """Return ImageNet's classes in words."""
        return readable_names(WORDNET_IDS)

    def corrupted(self, corruption: str, severity: int, transform: Transform) -> Images:
        """Open the class folders of one corruption and severity."""
        folder = self.root / corruption / str(severity)
        if not folder.is_dir():
            raise incomplete(self.root, f"{corruption}/{severity}/")
        return LabeledImages(folder_samples(folder, WORDNET_IDS), transform, self.cache == "host")


class CIFAR10C(Corrupted):
    """CIFAR-10-C: the 10,000 test images under 19 corruptions of 5 severities.

    `root` holds `CIFAR-10-C/` with `labels.npy` and `<corruption>.npy`, which has 10,000 images per
    severity. Arguments: see `Corrupted`.
    """

    class_count = 10
    own_mean, own_std = CIFAR10.own_mean, CIFAR10.own_std
    folder_name: ClassVar[str] = "CIFAR-10-C"
    class_words: ClassVar[str] = CIFAR10_CLASSES

    def find_classes(self) -> list[str]:
        """Return the classes in their official order."""
        return self.class_words.split()

    def corrupted(self, corruption: str, severity: int, transform: Transform) -> Images:
        """Open one fifth of a corruption's file."""
        pixels = read_array(self.root / self.folder_name / f"{corruption}.npy")
        labels = read_array(self.root / self.folder_name / "labels.npy")
        if len(pixels) != len(labels) or len(pixels) % 5:
            raise InputError(
                f"{self.root / self.folder_name}: {len(pixels)} images of {corruption} and "
                f"{len(labels)} labels, expected five times the test set for both. Unpack the "
                "archive again."
            )
        each = len(pixels) // 5
        part = slice((severity - 1) * each, severity * each)
        return ArrayImages(pixels[part], labels[part], transform)


class CIFAR100C(CIFAR10C):
    """CIFAR-100-C, in `CIFAR-100-C/`, like `CIFAR10C`."""

    class_count = 100
    own_mean, own_std = CIFAR100.own_mean, CIFAR100.own_std
    folder_name = "CIFAR-100-C"
    class_words = CIFAR100_CLASSES


class ArrayImages(Dataset[Any]):
    """Images in an array.

    Args:
        pixels: uint8 `(n, H, W, 3)`.
        labels: `(n,)`.
        transform: Maps a Pillow image to a tensor.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Transform) -> None:
        self.pixels, self.transform = pixels, transform
        self.targets: list[int] = np.asarray(labels).astype(int).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(np.array(self.pixels[index]))), self.targets[index]
