"""Images for prediction, with names in place of labels."""

from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from smmix_pl.data.io.file_lists import image_files, warn_ignored
from smmix_pl.data.io.images import Source, existing_folder, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class ImageFiles(Dataset[tuple[Tensor, str]]):
    """Every image file below a folder, in order, with its path.

    Args:
        folder: Searched recursively, by the rule of `image_files`.
        transform: Maps a Pillow image to a tensor.
        option: Option that the user named the folder with, for errors.

    Raises:
        InputError: The folder is missing or has no image.
    """

    def __init__(
        self, folder: Path, transform: Transform, option: str = "data.predict_dir"
    ) -> None:
        existing_folder(folder, option)
        found, ignored = image_files(folder)
        warn_ignored(str(folder), ignored)
        if not found:
            raise InputError(
                f"{option}={folder}: no image file found. Set it to a folder of images."
            )
        self.files = found
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        file = self.files[index]
        return transformed(file, self.transform), file


class NamedImages(Dataset[tuple[Tensor, str]]):
    """A labeled dataset as (image, name). The name is the path, or the index without a file.

    Args:
        images: A map-style dataset of (image, class index).
    """

    def __init__(self, images: Dataset[tuple[Tensor, int]]) -> None:
        self.images = images
        self.samples: list[tuple[Source, int]] | None = getattr(images, "samples", None)

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        name = f"#{index}" if self.samples is None else str(self.samples[index][0])
        return self.images[index][0], name
