"""Image data sets of the Hugging Face hub."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from smmix_pl.data.datamodule import ImageData, Images, Split
from smmix_pl.data.io.images import Content, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class HuggingFace(ImageData):
    """An image data set of the Hugging Face hub, or one that was saved to ``root``.

    Needs the extra ``datasets``. It is downloaded by that library, with its checks, and mapped from
    disk, not kept in memory.

    Args:
        name: Of the hub, such as ``ILSVRC/imagenet-1k``; null loads what is saved in ``root``.
        config: Which of its configurations, where it has several.
        train: Name of the training split.
        val: Name of the validation split.
        test: Name of the test split.
        image: Name of the column of images.
        label: Name of the column of class numbers, which knows the classes' names.
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
        self.name, self.config = name, config  # find_classes, which the base calls, needs them
        self.parts = {"train": train, "val": val, "test": test}
        self.columns = image, label
        super().__init__(**options)

    def find_classes(self) -> list[str]:
        """What the column of labels calls them."""
        self.splits = self._load()
        missing = sorted(set(self.parts.values()) - set(self.splits))
        if missing:
            raise InputError(
                f"{self.name or self.root} has no split {missing[0]!r}; set data.train, "
                f"data.val and data.test to some of {', '.join(self.splits)}"
            )
        names = getattr(
            self.splits[self.parts["train"]].features.get(self.columns[1]), "names", None
        )
        if names is None:
            raise InputError(
                f"column {self.columns[1]!r} of {self.name or self.root} does not name classes; "
                "set data.label to the one that does"
            )
        for part in set(self.parts.values()):
            columns = self.splits[part].features
            if type(columns.get(self.columns[0])).__name__ != "Image":
                raise InputError(
                    f"column {self.columns[0]!r} of {self.name or self.root} holds no images; set "
                    f"data.image to one of {', '.join(columns)}"
                )
        return list(names)

    def images(self, split: Split, transform: Transform) -> Images:
        """One split."""
        return HuggingFaceImages(self.splits[self.parts[split]], *self.columns, transform)

    def _load(self) -> Any:
        from datasets import DatasetDict, load_dataset, load_from_disk

        try:
            if self.name is None:
                found = load_from_disk(str(self.root))
            else:
                found = load_dataset(self.name, self.config, cache_dir=str(self.root))
            if not isinstance(found, DatasetDict):
                raise ValueError("it is one split; save a DatasetDict")
            return found
        except (FileNotFoundError, ConnectionError, ValueError) as error:
            raise InputError(
                f"the data set {self.name or self.root} cannot be loaded ({error}); set data.name "
                "to one of the hub, or data.root to where one is saved"
            ) from error


class HuggingFaceImages(Dataset[Any]):
    """One split; its images are decoded here, so that bad ones are told as everywhere."""

    def __init__(self, rows: Any, image: str, label: str, transform: Transform) -> None:
        from datasets import Image

        self.origin = rows
        self.rows = rows.cast_column(image, Image(decode=False))
        self.targets: list[int] = list(rows[label])
        self.image, self.transform = image, transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        stored = self.rows[index][self.image]
        content = stored["bytes"] or Path(stored["path"]).read_bytes()
        source = Content(f"{stored['path'] or 'row'} #{index}", content)
        return transformed(source, self.transform), self.targets[index]
