"""Progress of long loops: a bar in a terminal, a line per minute in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

T = TypeVar("T")
EVERY = 60.0
"""Seconds between two lines."""


def with_progress(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Yield the items, and report how many are done and the time left, on stderr.

    Args:
        items: What is worked on.
        total: Their number.
        title: What is done with them.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, title, total, leave=False)
        return
    clock = MinuteClock()
    for done, item in enumerate(items):
        yield item
        left = clock.left(done + 1, total)
        if left is not None:
            print(f"{title}: {done + 1:,} of {total:,}, {left} left", file=sys.stderr, flush=True)


class MinuteClock:
    """Reports once per minute how long the rest of a loop will take."""

    def __init__(self) -> None:
        self._start = self._reported = time.monotonic()

    def left(self, done: int, total: float) -> str | None:
        """Return the time left as hours, minutes, and seconds, or None within the minute."""
        now = time.monotonic()
        if now - self._reported < EVERY:
            return None
        self._reported = now
        return duration((now - self._start) / done * (total - done))


def duration(seconds: float) -> str:
    """Return hours, minutes, and seconds."""
    return str(timedelta(seconds=max(0, round(seconds))))
