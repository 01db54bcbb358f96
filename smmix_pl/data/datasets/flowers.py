"""Oxford Flowers-102."""

from functools import cached_property
from pathlib import Path
from typing import Any

from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, dataset_folder, incomplete, read_mat
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError


class Flowers102(FileData):
    """Oxford Flowers-102 (Nilsback and Zisserman, 2008): 102 species, 6,149 test images.

    The training and validation sets have 10 images of each species. `root` holds the owner's
    `jpg/`, `imagelabels.mat`, and `setid.mat`, or `flowers-102/` with them, as in torchvision.
    Arguments: see `ImageData`.
    """

    archives = tuple(
        Archive(
            f"https://www.robots.ox.ac.uk/~vgg/data/flowers/102/{file}", md5, gives, "flowers-102"
        )
        for file, md5, gives in (
            ("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", "jpg"),
            ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", "imagelabels.mat"),
            ("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", "setid.mat"),
        )
    )
    class_count = 102
    sizes = Sizes(1020, 1020, 6149)

    def find_classes(self) -> list[str]:
        """Return the species in their official order."""
        _ = self._folder  # the names are constant, but the files must exist
        return list(datasets.Flowers102.classes)

    def samples(self, split: Split) -> Samples:
        """Return the official split."""
        images = self._folder / "jpg"
        if not images.is_dir():
            raise incomplete(self._folder, "jpg/")
        labels = self._list("imagelabels.mat", "labels")
        part = {"train": "trnid", "val": "valid", "test": "tstid"}[split]
        return [
            (str(images / f"image_{number:05d}.jpg"), int(labels[number - 1]) - 1)
            for number in self._list("setid.mat", part)
        ]

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "flowers-102", flat="jpg")

    def _list(self, name: str, variable: str) -> Any:
        file = self._folder / name
        [md5] = [archive.md5 for archive in self.archives if archive.gives == name]
        if file.is_file() and not check_integrity(str(file), md5):
            raise InputError(f"{file}: wrong checksum. Download it again.")
        return read_mat(file, variable)
