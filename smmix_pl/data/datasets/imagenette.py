"""Imagenette: ten classes of ImageNet."""

from functools import cached_property
from pathlib import Path

from smmix_pl.data.base import Split
from smmix_pl.data.datasets.imagenet import readable_names
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, class_folders, dataset_folder, folder_samples
from smmix_pl.data.validation import Sizes


class Imagenette(FileData):
    """Imagenette (fast.ai, version 2): ten easily classified classes of ImageNet.

    9,469 training and 3,925 validation photographs. As in papers, the validation set is also the
    test set. `root` holds `imagenette2-320/`, as in torchvision, whose shorter sides have 320
    pixels, or the `train/` and `val/` of any other size or subset. Arguments: see `ImageData`.
    """

    archives = (
        Archive(
            "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
            "3df6f0d01a2c9592104656642f5e78a3",
            gives="imagenette2-320",
        ),
    )
    class_count = 10
    sizes = Sizes(9469, 3925, 3925)

    def find_classes(self) -> list[str]:
        """Return the classes in words, in the order of their WordNet ids."""
        return readable_names(self._wordnet_ids)

    def samples(self, split: Split) -> Samples:
        """Return `train/` for training, and `val/` for validation and test."""
        part = "train" if split == "train" else "val"
        return folder_samples(self._folder / part, self._wordnet_ids)

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "imagenette2-320", flat="train")

    @cached_property
    def _wordnet_ids(self) -> list[str]:
        return class_folders(self._folder / "train")
