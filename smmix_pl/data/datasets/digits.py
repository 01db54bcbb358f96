"""Handwritten digits: 1,797 real images that are part of scikit-learn and need no download."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.splits import stratified_split
from smmix_pl.data.transforms import Transform


class Digits(ImageData):
    """The test set of UCI's optical recognition of handwritten digits (Alpaydin & Kaynak, 1998).

    8 x 8 grayscale images of the ten digits from 43 writers, upsampled to `image_size`. A fixed
    fifth of each class is the test set. `root` is not used. Arguments: see `ImageData`.
    """

    class_count = 10

    own_mean = (0.305, 0.305, 0.305)
    own_std = (0.376, 0.376, 0.376)

    def find_classes(self) -> list[str]:
        """Return the ten digits."""
        return list("0123456789")

    def images(self, split: Split, transform: Transform) -> Images:
        """Open the fixed training set, or the fixed test set for validation and test."""
        pixels, labels = _all_digits()
        train, test = stratified_split(labels, fraction=0.2, seed=0)
        part = train if split == "train" else test
        return DigitImages(pixels[part], labels[part], transform)


class DigitImages(Dataset[tuple[Tensor, int]]):
    """Grayscale 8 x 8 images in memory.

    Args:
        pixels: `(n, 64)`, values 0 to 16.
        labels: `(n,)`.
        transform: Maps a Pillow image to a tensor.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Transform) -> None:
        self.gray = (pixels.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
        self.targets: list[int] = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.gray[index]).convert("RGB")
        return self.transform(image), self.targets[index]


@cache
def _all_digits() -> tuple[np.ndarray, Any]:
    """Return pixels `(1797, 64)` and labels `(1797,)`, which are parsed once per process."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels
