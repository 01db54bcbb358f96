"""FGVC-Aircraft, by variant."""

from functools import cached_property
from pathlib import Path

from torchvision import datasets

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, dataset_folder, incomplete, torchvision_samples
from smmix_pl.data.validation import Sizes


class Aircraft(FileData):
    """FGVC-Aircraft 2013b (Maji et al., 2013): 100 variants, 3,334 + 3,333 + 3,333 images.

    As in papers, the official train and val splits are used for training and the test split is
    reported. `held_out` reserves some training images for validation. `root` holds
    `fgvc-aircraft-2013b/`. Arguments: see `ImageData`.
    """

    archives = (
        Archive(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
            "fgvc-aircraft-2013b.tar.gz",
            "d4acdd33327262359767eeaa97a4f732",
            gives="fgvc-aircraft-2013b",
        ),
    )
    class_count = 100
    sizes = Sizes(6667, 3333, 3333)

    def find_classes(self) -> list[str]:
        """Return the variants, such as 747-400."""
        return self._read("trainval").classes

    def samples(self, split: Split) -> Samples:
        """Return train and val together for training, and the test split otherwise."""
        return torchvision_samples(self._read("trainval" if split == "train" else "test"))

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "fgvc-aircraft-2013b")

    def _read(self, part: str) -> datasets.FGVCAircraft:
        try:
            return datasets.FGVCAircraft(str(self._folder.parent), part, loader=str)
        except (RuntimeError, FileNotFoundError) as error:
            raise incomplete(self._folder, "data/variants.txt or a list beside it") from error
