"""Images with any number of labels, listed in CSV or JSON files."""

import csv
import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smmix_pl.data.base import Images, Split
from smmix_pl.data.file_data import FileData, LabeledImages
from smmix_pl.data.io.file_lists import Samples
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError
from smmix_pl.metrics import OUTLIER

Rows = list[tuple[str, list[str]]]
"""Path and labels of each image."""
SEPARATOR = "|"


class LabelFile(FileData):
    """Images with several labels each, or none, for `smmix_pl.downstream.MultiLabel`.

    A file lists the images of a split: a CSV file with the columns `path` and `labels`, separated
    by `|`, or a JSON array of objects with `path` and a list of `labels`. Paths are relative to
    `root`. The labels of the training file are the classes, in alphabetical order.

    `held_out`, `train_fraction`, `shots`, and `balanced` group images by their rarest label, and
    images without labels together.

    Args:
        train: File of the training set, relative to root.
        val: File of the validation set; `null` uses the test set.
        test: File of the test set; `null` uses the validation set.
        **options: See `ImageData`.
    """

    has_outliers = True  # images without labels are grouped under OUTLIER

    def __init__(
        self,
        train: str = "train.csv",
        val: str | None = "val.csv",
        test: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.parts = {"train": train, "val": val or test, "test": test or val}
        self._rows: dict[str, Rows] = {}

    def find_classes(self) -> list[str]:
        """Return the labels of the training file."""
        return sorted({label for _, labels in self.rows("train") for label in labels})

    def rows(self, split: Split) -> Rows:
        """Return path and labels of each image in the file of a split.

        Raises:
            InputError: The file is missing or malformed, or lists a path outside of root.
        """
        part = self.parts[split]
        if part is None:
            raise InputError(
                f"data.{split}=null: data.val and data.test are both null, so {self.root} has no "
                f"{split} split. Set one of them, or set data.held_out and do not test."
            )
        if part not in self._rows:
            self._rows[part] = _read(self.root / part)
        return self._rows[part]

    def samples(self, split: Split) -> Samples:
        """Return each image with its rarest label."""
        counts = Counter(label for _, labels in self.rows("train") for label in labels)
        index = {name: number for number, name in enumerate(self.class_names)}
        samples: Samples = []
        for path, labels in self.rows(split):
            if unknown := [label for label in labels if label not in index]:
                raise InputError(
                    f"{self.root / str(self.parts[split])}: {path} has the label {unknown[0]!r}, "
                    f"which data.train={self.parts['train']} does not have. Correct it."
                )
            rarest = min(labels, key=lambda label: (counts[label], label), default=None)
            samples.append((str(self.root / path), OUTLIER if rarest is None else index[rarest]))
        return samples

    def images(self, split: Split, transform: Transform) -> Images:
        """Open the images with all their labels."""
        samples = self.checked_samples(split)
        index = {name: number for number, name in enumerate(self.class_names)}
        labels = [[index[label] for label in labels] for _, labels in self.rows(split)]
        cached = self.cache == "host"
        return MultiHotImages(samples, labels, self.num_classes, transform, cached)

    def label_counts(self) -> Tensor:
        """Return the number of training images with each label. See `ImageData`."""
        index = {name: number for number, name in enumerate(self.class_names)}
        rows = self.rows("train")
        found = [index[label] for place in self.train_places for label in rows[place][1]]
        return torch.from_numpy(np.bincount(found, minlength=self.num_classes))


class MultiHotImages(LabeledImages):
    """Images with all their labels.

    Args:
        samples: Source of each image, and one of its labels, or `OUTLIER`.
        labels: Indices of all labels of each image.
        num_classes: Number of classes, K.
        transform: Maps an opened Pillow image to a tensor.
        cache: Decode each image once and keep its pixels in memory.
    """

    def __init__(
        self,
        samples: Samples,
        labels: list[list[int]],
        num_classes: int,
        transform: Transform,
        cache: bool,
    ) -> None:
        super().__init__(samples, transform, cache)
        self.labels = labels
        self.num_classes = num_classes

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return one image and its labels, `(K,)` bool."""
        image, _ = super().__getitem__(index)
        labels = torch.zeros(self.num_classes, dtype=torch.bool)
        labels[self.labels[index]] = True
        return image, labels


def _read(file: Path) -> Rows:
    """Return path and labels of each row of a file.

    Raises:
        InputError: It is missing or malformed, or lists a path outside of its root.
    """
    if not file.is_file():
        raise InputError(f"{file}: not found. Set data.train, data.val, and data.test.")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it contains null characters")
        rows = _json_rows(text) if file.suffix.lower() == ".json" else _csv_rows(text)
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{file}: not a list of images ({error}). Expected a CSV file with the columns path "
            "and labels, or a JSON array of objects with both."
        ) from error
    for path, _ in rows:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"{file}: {path} is outside of data.root. Use relative paths.")
    if repeated := [path for path, count in Counter(path for path, _ in rows).items() if count > 1]:
        raise InputError(f"{file}: lists {repeated[0]} twice. Merge its labels into one row.")
    return rows


def _csv_rows(text: str) -> Rows:
    reader = csv.DictReader(text.splitlines(), strict=True)
    if not {"path", "labels"} <= set(reader.fieldnames or ()):
        raise ValueError("no columns path and labels in its first line")
    rows = []
    for row in reader:
        if not row["path"] or row["labels"] is None:
            raise ValueError(f"line {reader.line_num} has no path or no labels column")
        labels = (label.strip() for label in row["labels"].split(SEPARATOR))
        rows.append((row["path"], list(dict.fromkeys(filter(None, labels)))))
    return rows


def _json_rows(text: str) -> Rows:
    content = json.loads(text)
    if not isinstance(content, list):
        raise ValueError("not an array")
    rows = []
    for number, row in enumerate(content):
        path, labels = (row.get("path"), row.get("labels")) if isinstance(row, dict) else ("", None)
        listed = labels if isinstance(labels, list) else [None]
        if not isinstance(path, str) or not path or not all(isinstance(one, str) for one in listed):
            raise ValueError(f"item {number} has no path or no list of labels")
        rows.append((path, list(dict.fromkeys(filter(None, listed)))))
    return rows
