"""Chunks of the litdata library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.io.file_lists import incomplete, read_lines
from smmix_pl.data.io.images import Content, read_array, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class LitData(ImageData):
    """Chunks of the litdata library: `root/<split>/index.json` and `root/classes.txt`.

    Each item is a dict of `image` (the bytes of an encoded file) and `class` (its index).
    `smmix make-shards --format litdata` writes them, with all class indices in
    `<split>/classes.npy`. Requires the extra `litdata`. A missing validation or test split is
    replaced by the other one. All splits number their classes by the one `classes.txt`.

    Args:
        remote: Location of the chunks if they are not in `root`, such as `s3://bucket/folder`. They
            are cached in `root` as needed. Copy `classes.txt` and `classes.npy` there beforehand.
        **options: See `ImageData`.
    """

    cacheable = False
    reads_root = True

    def __init__(self, remote: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.remote = remote

    def find_classes(self) -> list[str]:
        """Return the lines of `classes.txt`."""
        return read_lines(self.root / "classes.txt")

    def images(self, split: Split, transform: Transform) -> Images:
        """Open one split."""
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
    """One split in litdata's chunks, with random access.

    Args:
        folder: Folder of the chunks, or of their cache.
        remote: Location of the chunks if they are remote.
        labels: Class index of each item.
        transform: Maps an opened Pillow image to a tensor.
    """

    threads = 1
    """Number of concurrent readers: litdata drops a chunk when another thread opens the next."""

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
            len(self.items)  # opens the chunks; on several ranks, it counts those of one rank
            index = json.loads((folder / "index.json").read_text())
            found = sum(chunk["chunk_size"] for chunk in index["chunks"])
        except (ValueError, LookupError, OSError, RuntimeError) as error:
            raise InputError(
                f"{remote or folder}: no litdata chunks of images ({error}). Write them again."
            ) from error
        if found != len(labels):
            raise InputError(
                f"{folder}: {found} items but {len(labels)} class indices in classes.npy. Write it "
                "again."
            )
        self.targets: list[int] = labels.tolist()
        self.origin, self.transform = str(remote or folder), transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        source = Content(f"{self.origin} #{index}", self.items[index]["image"])
        return transformed(source, self.transform), self.targets[index]


class Refused:
    """Replacement of litdata's serializers that unpickle, which a dataset's index can request."""

    def setup(self, metadata: Any) -> None:
        """Refuse the dataset. litdata calls this before it opens an item."""
        raise ValueError("its items are pickled, which could run code")
