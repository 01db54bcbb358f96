"""Images to predict: with their names instead of classes."""

import os
from pathlib import Path
from typing import NoReturn

from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.io.images import Source, existing_folder, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class ImageFiles(Dataset[tuple[Tensor, str]]):
    """Every image file below a folder, in order, with its path.

    Args:
        folder: Searched recursively.
        transform: From a Pillow image to a tensor.

    Raises:
        InputError: The folder is missing or holds no image.
    """

    def __init__(self, folder: Path, transform: Transform) -> None:
        existing_folder(folder, "data.predict_dir")
        self.files = sorted(
            Path(place) / name
            for place, _, names in os.walk(folder, onerror=_raise)
            for name in names
            if Path(name).suffix.lower() in IMG_EXTENSIONS
        )
        if not self.files:
            raise InputError(f"no image file below {folder}; point data.predict_dir at images")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        file = str(self.files[index])
        return transformed(file, self.transform), file


class NamedImages(Dataset[tuple[Tensor, str]]):
    """A labeled data set as (image, name): the file's path, or its index where it has no file.

    Args:
        images: A map-style data set of (image, class number).
    """

    def __init__(self, images: Dataset[tuple[Tensor, int]]) -> None:
        self.images = images
        self.samples: list[tuple[Source, int]] | None = getattr(images, "samples", None)

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        name = f"#{index}" if self.samples is None else str(self.samples[index][0])
        return self.images[index][0], name


def _raise(error: OSError) -> NoReturn:
    """A folder that cannot be listed is told, not left out."""
    raise error
