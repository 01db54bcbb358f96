"""Sets too large for a tree of files: WebDataset shards, litdata chunks, Hugging Face data sets.

All are read at random places, so samplers share them out over ranks and workers as they do files:
every image once an epoch, in an order that follows from seed and epoch, also after a resume.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.base import ImageData, Images, Split
from smmix_pl.data.files import FileData, Samples, incomplete, read_lines
from smmix_pl.data.reading import Content, TarSlice, read_array, read_slice, transformed
from smmix_pl.data.tar import files_in_tar
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
            images: list[TarSlice] = []
            labels: dict[str, int] = {}
            for place in files_in_tar(tar, (".cls", *IMG_EXTENSIONS)):
                if place.name.lower().endswith(".cls"):
                    labels[_key(place)] = _number(place)
                else:
                    images.append(place)
            for place in images:
                if _key(place) not in labels:
                    raise InputError(f"{place} has no .cls file beside it; write the shards again")
                found.append((place, labels[_key(place)]))
        if not found:
            raise incomplete(self.root, f"{split}-*.tar")
        return found


class LitData(ImageData):
    """Chunks of the litdata library: ``root/<part>/index.json`` and ``root/classes.txt``.

    Each item is a dict of ``image`` (an encoded file's bytes) and ``class`` (its number).
    ``python -m smmix_pl.data.shards --format litdata`` writes them, with all class numbers beside
    them in ``<part>/classes.npy``. Needs the extra ``litdata``. Without ``val`` chunks the ``test``
    ones validate, and the other way round.

    Args:
        remote: Where the chunks are, such as ``s3://bucket/folder``, if not in ``root``; they are
            then cached in ``root`` as they are needed, and ``classes.txt`` and ``classes.npy`` have
            to be copied there beforehand.
        **options: See `ImageData`.
    """

    cacheable = False

    def __init__(self, remote: str | None = None, **options: Any) -> None:
        self.remote = remote  # find_classes, which the base calls, comes after it
        super().__init__(**options)

    def find_classes(self) -> list[str]:
        """The lines of ``classes.txt``."""
        return read_lines(self.root / "classes.txt")

    def images(self, split: Split, transform: Transform) -> Images:
        """One part."""
        other = {"train": "train", "val": "test", "test": "val"}[split]
        for part in (split, other):
            labels = self.root / part / "classes.npy"
            if labels.is_file():
                numbers = read_array(labels)
                return LitImages(self.root / part, self._remote(part), numbers, transform)
        raise incomplete(self.root, f"{split}/classes.npy")

    def _remote(self, part: str) -> str | None:
        return None if self.remote is None else f"{self.remote.rstrip('/')}/{part}"


class LitImages(Dataset[Any]):
    """One part in litdata's chunks, read at random places."""

    threads = 1
    """How many may read at once: litdata forgets a chunk that another thread goes on to."""

    def __init__(
        self, folder: Path, remote: str | None, labels: np.ndarray, transform: Transform
    ) -> None:
        from litdata import StreamingDataset

        options: dict[str, Any] = {"serializers": {"pickle": Refused(), "graph": Refused()}}
        try:
            if remote is None:
                self.items = StreamingDataset(str(folder), **options)
            else:
                self.items = StreamingDataset(remote, cache_dir=str(folder), **options)
            len(self.items)  # opens them; on several ranks it counts one rank's share
            index = json.loads((folder / "index.json").read_text())
            found = sum(chunk["chunk_size"] for chunk in index["chunks"])
        except (ValueError, LookupError, OSError, RuntimeError) as error:
            where = remote or folder
            raise InputError(
                f"{where} has no litdata chunks of images ({error}); write them again"
            ) from error
        if found != len(labels):
            raise InputError(
                f"{folder} has {found} items and {len(labels)} class numbers; write it again"
            )
        self.targets: list[int] = labels.tolist()
        self.origin, self.transform = str(remote or folder), transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        source = Content(f"{self.origin} #{index}", self.items[index]["image"])
        return transformed(source, self.transform), self.targets[index]


class Refused:
    """In place of those of litdata's serializers that unpickle, if a set's index asks for them."""

    def setup(self, metadata: Any) -> None:
        """Refuse the set; litdata asks before it opens an item."""
        raise ValueError("its items are pickled, which could run code")


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


def _number(place: TarSlice) -> int:
    """The class number in a file."""
    content = read_slice(place)
    try:
        return int(content)
    except ValueError as error:
        raise InputError(
            f"{place} holds {content[:20]!r} where a class number is expected; write it again"
        ) from error


def _key(place: TarSlice) -> str:
    """What a file shares with those that belong to it: its name up to the first dot."""
    folder, _, name = place.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"
