"""Image datasets of the Hugging Face hub."""

from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.io.file_lists import check_same_names
from smmix_pl.data.io.images import BadImage, Content, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class HuggingFace(ImageData):
    """An image dataset of the Hugging Face hub, or one saved in `root`.

    Requires the extra `datasets`. That library downloads and verifies the data and maps it from
    disk. Class indices follow the training split; splits that list the same names in another order
    are renumbered.

    Args:
        name: Name on the hub, such as `ILSVRC/imagenet-1k`; `null` loads the dataset saved in
            `root`.
        config: Name of the configuration, for datasets with several.
        train: Name of the training split.
        val: Name of the validation split.
        test: Name of the test split.
        image: Name of the column of images.
        label: Name of the column of class labels.
        **options: See `ImageData`.
    """

    cacheable = False

    def __init__(
        self,
        name: str | None = None,
        config: str | None = None,
        train: str = "train",
        val: str = "validation",
        test: str = "validation",
        image: str = "image",
        label: str = "label",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.name, self.config = name, config
        self.parts: dict[Split, str] = {"train": train, "val": val, "test": test}
        self.columns = image, label
        self.place = name or str(self.root)

    def find_classes(self) -> list[str]:
        """Return the class names of the training split."""
        for split in self.parts:
            check_same_names(f"{self.place}, split {self.parts[split]!r}", *self._names(split))
        return self._names("train")[1]

    def images(self, split: Split, transform: Transform) -> Images:
        """Open one split."""
        names, expected = self._names(split)
        part = self.parts[split]
        indices = [expected.index(name) for name in names]
        image, label = self.columns
        labels = list(self._splits[part][label])
        if None in labels:
            raise InputError(
                f"{self.place}: row {labels.index(None)} of split {part!r} has no label in column "
                f"{label!r}. Set data.label to another column, or remove such rows."
            )
        # -1 marks unlabeled rows, and is out of range for the datamodule
        targets = [indices[one] if 0 <= one < len(indices) else one for one in labels]
        return HuggingFaceImages(self._splits[part], image, targets, transform)

    def _names(self, split: Split) -> tuple[list[str], list[str]]:
        """Return the class names of a split, and those of the training split.

        Raises:
            InputError: A split lacks the column of images or of labels.
        """
        image, label = self.columns
        names = []
        for part in (self.parts[split], self.parts["train"]):
            columns = self._splits[part].features
            if type(columns.get(image)).__name__ != "Image":
                raise InputError(
                    f"data.image={image}: not a column of images in split {part!r} of {self.place}."
                    f" Use one of {', '.join(columns)}."
                )
            found = getattr(columns.get(label), "names", None)
            if found is None:
                raise InputError(
                    f"data.label={label}: not a column of named classes in split {part!r} of "
                    f"{self.place}. Use one of {', '.join(columns)}."
                )
            names.append(list(found))
        return names[0], names[1]

    @cached_property
    def _splits(self) -> Any:
        """All splits.

        Raises:
            InputError: The dataset cannot be loaded, or lacks a split.
        """
        from datasets import DatasetDict, load_dataset, load_from_disk

        try:
            if self.name is None:
                splits = load_from_disk(str(self.root))
            else:
                splits = load_dataset(self.name, self.config, cache_dir=str(self.root))
            if not isinstance(splits, DatasetDict):
                raise ValueError("it is a single split; save a DatasetDict")
        except (FileNotFoundError, ConnectionError, ValueError) as error:
            raise InputError(
                f"{self.place}: dataset cannot be loaded ({error}). Set data.name to a dataset of "
                "the hub, or data.root to a folder with a saved one."
            ) from error
        for option, part in self.parts.items():
            if part not in splits:
                raise InputError(
                    f"data.{option}={part}: no such split in {self.place}. Use one of "
                    f"{', '.join(splits)}."
                )
        return splits


class HuggingFaceImages(Dataset[Any]):
    """One split. Images are decoded here, so that bad ones are handled as in other datasets.

    Args:
        rows: The split.
        image: Name of the column of images.
        targets: Class index of each row.
        transform: Maps an opened Pillow image to a tensor.
    """

    def __init__(self, rows: Any, image: str, targets: list[int], transform: Transform) -> None:
        from datasets import Image

        self.origin = rows
        self.rows = rows.cast_column(image, Image(decode=False))
        self.targets = targets
        self.image, self.transform = image, transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        stored = self.rows[index][self.image]
        if stored is None:
            raise BadImage(f"row #{index}: no image in column {self.image!r}")
        content = stored["bytes"] or Path(stored["path"]).read_bytes()
        source = Content(f"{stored['path'] or 'row'} #{index}", content)
        return transformed(source, self.transform), self.targets[index]
