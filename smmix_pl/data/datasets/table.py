"""Images listed in a table."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, counted
from smmix_pl.data.io.tables import read_columns
from smmix_pl.errors import InputError


class Row(NamedTuple):
    """A row of the table: number from 1, path as written, class name, and split."""

    number: int
    image: str
    label: str
    split: str


class Table(FileData):
    """Images listed in a CSV, TSV, or Parquet file, one per row, with class names and splits.

    Classes are the labels of the training images, sorted as text. Every row needs a label and one
    of the named splits. Images are inside `root`: their paths are relative to it, or absolute.

    Args:
        file: The table, relative to root.
        image: Column of the paths.
        label: Column of the class names or numbers.
        split: Column of the splits. `null` trains on all rows; set `held_out` for validation.
        train: Name of the training split in that column.
        val: Name of the validation split; `null` uses the test set.
        test: Name of the test split; `null` uses the validation set.
        **options: See `ImageData`.
    """

    def __init__(
        self,
        file: str = "images.csv",
        image: str = "image",
        label: str = "label",
        split: str | None = "split",
        train: str = "train",
        val: str | None = "val",
        test: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.file = self.root / file
        self.columns = (image, label) if split is None else (image, label, split)
        self.parts = {"train": train, "val": val or test, "test": test or val}
        if split is None:
            self.parts = {"train": train, "val": None, "test": None}

    def find_classes(self) -> list[str]:
        """Return the labels of the training images."""
        return sorted({row.label for row in self._rows if row.split == self.parts["train"]})

    def samples(self, split: Split) -> Samples:
        """Return the images of a split.

        Raises:
            InputError: There is no such split, or it has another class or a missing file.
        """
        part = self.parts[split]
        if part is None:
            raise InputError(
                f"data.{split}=null: {self.file} has no {split} split. Set data.split and data.val "
                "or data.test, or set data.held_out and do not test."
            )
        rows = [row for row in self._rows if row.split == part]
        if not rows:
            raise InputError(
                f"data.{split}={part}: no row of {self.file} has this split. Use one of "
                f"{', '.join(sorted({row.split for row in self._rows}))}."
            )
        numbers = {name: number for number, name in enumerate(self.class_names)}
        files = [self._inside_root(row) for row in rows]
        missing = [file for file in files if not os.path.isfile(file)]
        if missing:
            raise InputError(
                f"{self.file}: {counted(len(missing), f'{split} image')} missing, such as "
                f"{missing[0]}. Set data.root to the folder that the paths begin in."
            )
        for row in rows:
            if row.label not in numbers:
                raise InputError(
                    f"{self.file}: row {row.number} has the label {row.label!r}, which no training "
                    "image has. Fix it, or remove the row."
                )
        return [(file, numbers[row.label]) for file, row in zip(files, rows, strict=True)]

    @cached_property
    def _rows(self) -> list[Row]:
        """All rows.

        Raises:
            InputError: The table cannot be read, or a row is incomplete or of an unknown split.
        """
        known = [name for name in dict.fromkeys(self.parts.values()) if name is not None]
        rows = []
        for number, values in enumerate(read_columns(self.file, self.columns), start=1):
            row = Row(number, *values, *(known[:1] if len(values) < 3 else ()))
            if not row.image or not row.label:
                lacks = "image" if not row.image else "label"
                raise InputError(
                    f"{self.file}: row {number} has no {lacks}. Fix it, or remove the row."
                )
            if row.split not in known:
                raise InputError(
                    f"{self.file}: row {number} has the split {row.split!r}, expected "
                    f"{', '.join(known)}. Fix it, or set data.train, data.val, or data.test."
                )
            rows.append(row)
        if not rows:
            raise InputError(f"{self.file}: no rows. Add one for each image.")
        return rows

    def _inside_root(self, row: Row) -> str:
        """Return the path of an image. A table must not lead to files elsewhere on the disk."""
        file = os.path.normpath(self.root / row.image)
        if not Path(os.path.abspath(file)).is_relative_to(os.path.abspath(self.root)):
            raise InputError(
                f"{self.file}: row {row.number} has the path {row.image}, which is outside "
                f"{self.root}. Set data.root to a folder above all images, such as /."
            )
        return file
