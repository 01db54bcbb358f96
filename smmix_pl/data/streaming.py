"""Sets too large for a tree of files: WebDataset shards and Hugging Face data sets.

Both are read at random places, so samplers share them out over ranks and workers as they do files:
every image once an epoch, in an order that follows from seed and epoch, also after a resume.
"""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from smmix_pl.data.base import ImageData, Images, Split
from smmix_pl.data.files import FileData, Samples, incomplete, read_lines
from smmix_pl.data.reading import Content, TarSlice, read_slice, transformed
from smmix_pl.data.tar import files_in_tar, images_in_tar
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class Shards(FileData):
    """WebDataset shards on a local or shared disk: ``root/<part>-*.tar`` and ``root/classes.txt``.

    Each image has its class number beside it in a ``.cls`` file. ``python -m smmix_pl.data.shards``
    writes them. Without ``val`` shards the ``test`` ones validate, and the other way round.
    Arguments: see `ImageData`.
    """

    def find_classes(self) -> list[str]:
        """The lines of ``classes.txt``."""
        return read_lines(self.root / "classes.txt")

    def samples(self, split: Split) -> Samples:
        """Places of the images in all tars of a part."""
        other = {"train": "train", "val": "test", "test": "val"}[split]
        tars = [sorted(self.root.glob(f"{part}-*.tar")) for part in (split, other)]
        found: Samples = []
        for tar in tars[0] or tars[1]:
            labels = {_key(place): int(read_slice(place)) for place in files_in_tar(tar, (".cls",))}
            found += [(place, labels[_key(place)]) for place in images_in_tar(tar)]
        if not found:
            raise incomplete(self.root, f"{split}-*.tar")
        return found


class HuggingFace(ImageData):
    """An image data set of the Hugging Face hub, or one that was saved to ``root``.

    Needs the extra ``datasets``. It is downloaded by that library, with its checks, and mapped from
    disk, not kept in memory.

    Args:
        name: Of the hub, such as ``ILSVRC/imagenet-1k``; null loads what is saved in ``root``.
        train: Name of the training split.
        val: Name of the validation split.
        test: Name of the test split.
        image: Name of the column of images.
        label: Name of the column of class numbers, which knows the classes' names.
        **options: See `ImageData`.
    """

    def __init__(
        self,
        name: str | None = None,
        train: str = "train",
        val: str = "validation",
        test: str = "validation",
        image: str = "image",
        label: str = "label",
        **options: Any,
    ) -> None:
        self.name = name  # find_classes, which the base calls, needs it
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
        return list(names)

    def images(self, split: Split, transform: Transform) -> Images:
        """One split."""
        return HuggingFaceImages(self.splits[self.parts[split]], *self.columns, transform)

    def _load(self) -> Any:
        from datasets import load_dataset, load_from_disk  # type: ignore[import-untyped]

        try:
            if self.name is None:
                return load_from_disk(str(self.root))
            return load_dataset(self.name, cache_dir=str(self.root))
        except (FileNotFoundError, ConnectionError) as error:
            raise InputError(
                f"the data set {self.name or self.root} cannot be loaded ({error}); set data.name "
                "to one of the hub, or data.root to where one is saved"
            ) from error


class HuggingFaceImages(Dataset[Any]):
    """One split; its images are decoded here, so that bad ones are told as everywhere."""

    def __init__(self, rows: Any, image: str, label: str, transform: Transform) -> None:
        from datasets import Image

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


def _key(place: TarSlice) -> str:
    """What a file shares with those that belong to it: its name up to the first dot."""
    folder, _, name = place.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"
