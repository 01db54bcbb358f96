"""Many small Python objects in one array."""

import pickle
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class Packed(Generic[Item]):
    """Items as bytes of one array, which forked workers share.

    Each worker would copy the memory of a list sooner or later, because reading an object changes
    its reference count.

    Args:
        items: Objects that can be pickled.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        content = [pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in items]
        self._ends = np.cumsum([0, *map(len, content)])
        self._content = np.frombuffer(b"".join(content), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Item:
        start, end = self._ends[index : index + 2]
        item: Item = pickle.loads(self._content[start:end].data)
        return item
