"""FGVC-Aircraft, by variant."""

from torchvision import datasets

from smmix_pl.data.datamodule import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, incomplete, listed, unpacked
from smmix_pl.data.validation import Sizes


class Aircraft(FileData):
    """FGVC-Aircraft 2013b (Maji et al., 2013): 100 variants, 3,334 + 3,333 + 3,333 images.

    Papers train on the official train and val parts together and report the test part, and so does
    this; ``held_out`` keeps a part of the training images for validation. ``root`` holds
    ``fgvc-aircraft-2013b/``. Arguments: see `ImageData`.
    """

    archives = (
        Archive(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
            "fgvc-aircraft-2013b.tar.gz",
            "d4acdd33327262359767eeaa97a4f732",
            gives="fgvc-aircraft-2013b",
        ),
    )
    sizes = Sizes(6667, 3333, 3333)

    def find_classes(self) -> list[str]:
        """The variants, such as 747-400."""
        self.folder = unpacked(self.root, "fgvc-aircraft-2013b")
        return self._part("trainval").classes

    def samples(self, split: Split) -> Samples:
        """Train and val together for training, the official test part for the rest."""
        return listed(self._part("trainval" if split == "train" else "test"))

    def _part(self, part: str) -> datasets.FGVCAircraft:
        try:
            return datasets.FGVCAircraft(str(self.folder.parent), part, loader=str)
        except (RuntimeError, FileNotFoundError) as error:
            raise incomplete(self.folder, "data/variants.txt and the lists beside it") from error
