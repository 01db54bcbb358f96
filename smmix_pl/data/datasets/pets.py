"""Oxford-IIIT Pets."""

from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from smmix_pl.data.base import Split
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, dataset_folder, read_table
from smmix_pl.data.objects import VOID, Annotation, ObjectData, read_mask
from smmix_pl.data.validation import Sizes

TRIMAP = {1: 1, 2: 0, 3: VOID}
"""Class of each value of a trimap: pet, background, border."""


class OxfordPets(ObjectData):
    """Oxford-IIIT Pets (Parkhi et al., 2012): 37 breeds, 3,680 training and 3,669 test images.

    `root` holds the owner's `images/` and `annotations/`, or `oxford-iiit-pet/` with them, as in
    torchvision. torchvision's own reader would decode every image to get the labels. The trimaps
    are masks of one class, the pet. Arguments: see `ImageData`.
    """

    archives = (
        Archive(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
            "5c4f3ee8e5d25df40f4fd59a7f44e54c",
            gives="images",
            inside="oxford-iiit-pet",
        ),
        Archive(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
            "95a8c909bbe2e81eed6a22bccdf3f68f",
            gives="annotations",
            inside="oxford-iiit-pet",
        ),
    )
    class_count = 37
    sizes = Sizes(3680, 3669, 3669)

    def find_classes(self) -> list[str]:
        """Return the breeds: `american_bulldog_1` becomes American Bulldog."""
        breeds = {label: name.rsplit("_", 1)[0] for name, label in self._list("trainval")}
        return [breeds[label].replace("_", " ").title() for label in sorted(breeds)]

    def samples(self, split: Split) -> Samples:
        """Return the official split."""
        images = self._folder / "images"
        part: Literal["trainval", "test"] = "trainval" if split == "train" else "test"
        return [(str(images / f"{name}.jpg"), label) for name, label in self._list(part)]

    def annotations(self) -> list[Annotation]:
        """Return the mask of each pet."""
        found = []
        for file, _ in self.samples("test"):
            mask = self._folder / "annotations" / "trimaps" / f"{Path(str(file)).stem}.png"
            found.append(Annotation(str(file), str(mask), mask=partial(read_mask, mask, TRIMAP)))
        return found

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "oxford-iiit-pet", flat="annotations")

    def _list(self, part: Literal["trainval", "test"]) -> list[tuple[str, int]]:
        rows = read_table(self._folder / "annotations" / f"{part}.txt", columns=4)
        return [(name, int(label) - 1) for name, label, *_ in rows]
