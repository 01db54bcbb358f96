"""Tiny ImageNet: 200 classes at 64 x 64."""

from functools import cached_property
from pathlib import Path

from smmix_pl.data.base import Split
from smmix_pl.data.datasets.imagenet import readable_names
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import (
    Samples,
    dataset_folder,
    folder_samples,
    read_lines,
    read_table,
)
from smmix_pl.data.objects import Annotation, ObjectData
from smmix_pl.data.validation import Sizes


class TinyImageNet(ObjectData):
    """Tiny ImageNet (Stanford CS231n): 100,000 training and 10,000 validation images.

    `root` holds `tiny-imagenet-200/` with `wnids.txt`, `train/<class>/images/`, and `val/images/`
    with `val_annotations.txt`. The test set has no labels, so, as in papers, the validation set is
    used for testing. Its list has one box per image. Arguments: see `ImageData`.
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
    class_count = 200
    sizes = Sizes(100_000, 10_000, 10_000)

    def find_classes(self) -> list[str]:
        """Return the classes in words, in the order of their WordNet ids."""
        return readable_names(self._wordnet_ids)

    def samples(self, split: Split) -> Samples:
        """Return `train/`, or the annotated `val/` for validation and test."""
        if split == "train":
            return folder_samples(self._folder / "train", self._wordnet_ids, within="images")
        numbers = {name: number for number, name in enumerate(self._wordnet_ids)}
        images = self._folder / "val" / "images"
        return [(str(images / file), numbers[name]) for file, name, *_ in self._val_rows()]

    def annotations(self) -> list[Annotation]:
        """Return the box of each validation image, whose list includes the last pixels."""
        images, source = (
            self._folder / "val" / "images",
            str(self._folder / "val/val_annotations.txt"),
        )
        found = []
        for file, _, *sides in self._val_rows():
            left, top, right, bottom = map(float, sides)
            found.append(
                Annotation(str(images / file), source, [(left, top, right + 1, bottom + 1)])
            )
        return found

    def _val_rows(self) -> list[list[str]]:
        return read_table(self._folder / "val" / "val_annotations.txt", 6, "\t")

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "tiny-imagenet-200")

    @cached_property
    def _wordnet_ids(self) -> list[str]:
        return sorted(read_lines(self._folder / "wnids.txt"))
