"""Any folders of images and masks."""

from functools import cached_property
from typing import Any

from smmix_pl.data.base import Split
from smmix_pl.data.dense import DenseData, Pair, paired_files
from smmix_pl.errors import InputError


class SegmentationFolder(DenseData):
    """Your own images in `root/<split>/images/*`, with masks `root/<split>/masks/NAME.png`.

    Masks hold class indices. `root/classes.txt` lists the class names, one per line, in the order
    of the indices.

    Args:
        train: Folder of the training set, relative to root.
        val: Folder of the validation set.
        test: Folder of the test set; `null` uses the validation set.
        **options: See `DenseData`.
    """

    def __init__(
        self, train: str = "train", val: str = "val", test: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.parts = {"train": train, "val": val, "test": test or val}

    @cached_property
    def class_names(self) -> list[str]:
        """Lines of `classes.txt`, without those of ignored mask values.

        Raises:
            InputError: The file is missing, or has fewer than two names.
        """
        file = self.root / "classes.txt"
        if not file.is_file():
            raise InputError(f"{file}: not found. Write the class names into it, one per line.")
        lines = file.read_text().splitlines()
        names = [
            line.strip()
            for value, line in enumerate(lines)
            if line.strip() and value not in self.ignored
        ]
        if len(names) < 2:
            raise InputError(f"{file}: has {len(names)} class names. Add at least two.")
        return names

    def pairs(self, split: Split) -> list[Pair]:
        """Return the pairs of a split."""
        folder = self.root / self.parts[split]
        return paired_files(folder / "images", folder / "masks")
