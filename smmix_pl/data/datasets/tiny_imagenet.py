"""Tiny ImageNet: 200 classes at 64 x 64."""

from smmix_pl.data.datamodule import Split
from smmix_pl.data.datasets.imagenet import readable
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, folder_samples, read_lines, read_table, unpacked
from smmix_pl.data.validation import Sizes


class TinyImageNet(FileData):
    """Tiny ImageNet (Stanford CS231n): 100,000 training and 10,000 validation images.

    ``root`` holds ``tiny-imagenet-200/`` with ``wnids.txt``, ``train/<class>/images/``, and
    ``val/images/`` with ``val_annotations.txt``. Its test part has no labels: the validation part
    is the test set, as in papers. Arguments: see `ImageData`.
    """

    own_mean = (0.4802, 0.4481, 0.3975)
    own_std = (0.2770, 0.2691, 0.2821)
    archives = (
        Archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
            gives="tiny-imagenet-200",
        ),
    )
    sizes = Sizes(100_000, 10_000, 10_000)

    def find_classes(self) -> list[str]:
        """The classes in words, in the order of their WordNet ids."""
        self.folder = unpacked(self.root, "tiny-imagenet-200")
        self.wordnet_ids = sorted(read_lines(self.folder / "wnids.txt"))
        return readable(self.wordnet_ids)

    def samples(self, split: Split) -> Samples:
        """``train/``, or the annotated ``val/`` for validation and test."""
        if split == "train":
            return folder_samples(self.folder / "train", self.wordnet_ids)
        numbers = {name: number for number, name in enumerate(self.wordnet_ids)}
        rows = read_table(self.folder / "val/val_annotations.txt", 6, "\t")
        images = self.folder / "val" / "images"
        return [(str(images / file), numbers[name]) for file, name, *_ in rows]
