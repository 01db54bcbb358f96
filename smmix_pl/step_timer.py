"""How long the parts of a training step take, without the host waiting for the device."""

import platform
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.profiler import record_function

Mark = float | torch.cuda.Event
"""A moment: of the host's clock in seconds, or in the stream of work of a GPU."""


class Span(NamedTuple):
    """A part of a step."""

    name: str
    begin: Mark
    end: Mark


class StepTimer:
    """Collects the spans of each step; on a GPU they are read when the GPU has come past them.

    Args:
        device: Where the steps run.
    """

    running: "StepTimer | None" = None
    """The clock that `span` reports to."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._spans: list[Span] = []
        self._steps: deque[tuple[list[Span], Mark]] = deque()

    def begin_step(self) -> None:
        """Begin a step; what was counted since the last one, as in a validation, is forgotten."""
        self._spans, self._begin = [], self.mark()

    def mark(self) -> Mark:
        """This moment."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, span: Span) -> None:
        """Count a span to the step that runs."""
        self._spans.append(span)

    def end_step(self) -> dict[str, float] | None:
        """End a step; seconds by span, and of the whole ``step``, of the latest finished one.

        Returns:
            None while the device has not finished any further step.
        """
        end = self.mark()
        self._steps.append(([*self._spans, Span("step", self._begin, end)], end))
        finished = None
        while self._steps and _passed(self._steps[0][1]):
            finished, _ = self._steps.popleft()
        if finished is None:
            return None
        seconds: dict[str, float] = defaultdict(float)
        for name, begin, end in finished:
            seconds[name] += _between(begin, end)
        return seconds


@contextmanager
def span(name: str) -> Iterator[None]:
    """Name a part of a step, for `torch.profiler` and for the clock that runs, if one does."""
    clock = StepTimer.running
    with record_function(f"smmix_pl.{name}"):
        if clock is None:
            yield
            return
        begin = clock.mark()
        yield
        clock.add(Span(name, begin, clock.mark()))


@contextmanager
def untimed() -> Iterator[None]:
    """What is done in here is no part of a step."""
    clock, StepTimer.running = StepTimer.running, None
    try:
        yield
    finally:
        StepTimer.running = clock


def synchronized_time(device: torch.device) -> float:
    """The host's clock in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _passed(mark: Mark) -> bool:
    return isinstance(mark, float) or mark.query()


def _between(begin: Mark, end: Mark) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float) and isinstance(end, float)
        return end - begin
    return begin.elapsed_time(end) / 1000  # milliseconds
