"""Chunks of the litdata library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from smmix_pl.data.datamodule import ImageData, Images, Split
from smmix_pl.data.io.file_lists import incomplete, read_lines
from smmix_pl.data.io.images import Content, read_array, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class LitData(ImageData):
    """Chunks of the litdata library: ``root/<part>/index.json`` and ``root/classes.txt``.

    Each item is a dict of ``image`` (an encoded file's bytes) and ``class`` (its number).
    ``python -m smmix_pl.data.io.shard_writer --format litdata`` writes them, with all class numbers beside
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
