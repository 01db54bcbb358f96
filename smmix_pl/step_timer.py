"""Timing of the parts of a training step without synchronizing with the device."""

import platform
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.profiler import record_function

Mark = float | torch.cuda.Event
"""A point in time: seconds on the host's clock, or an event in a GPU stream."""


class Span(NamedTuple):
    """A named part of a step."""

    name: str
    begin: Mark
    end: Mark


class StepTimer:
    """Collects the spans of each step. On a GPU, they are read once the GPU has passed them.

    Args:
        device: Device that runs the steps.
    """

    running: "StepTimer | None" = None
    """Timer that `span` reports to. None turns timing off."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._spans: list[Span] = []
        self._steps: deque[tuple[list[Span], Mark]] = deque()

    def begin_step(self) -> None:
        """Start a step, and drop spans since the last one (such as those of a validation)."""
        self._spans, self._begin = [], self.mark()

    def mark(self) -> Mark:
        """Return the current point in time."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, span: Span) -> None:
        """Add a span to the current step."""
        self._spans.append(span)

    def end_step(self) -> dict[str, float] | None:
        """End a step.

        Returns:
            Seconds per span, and of the complete `step`, for the latest step that the device has
            finished. None if no further step has finished since the last call.
        """
        end = self.mark()
        self._steps.append(([*self._spans, Span("step", self._begin, end)], end))
        finished = None
        while self._steps and _has_passed(self._steps[0][1]):
            finished, _ = self._steps.popleft()
        if finished is None:
            return None
        seconds: dict[str, float] = defaultdict(float)
        for name, begin, end in finished:
            seconds[name] += _seconds_between(begin, end)
        return seconds


@contextmanager
def span(name: str) -> Iterator[None]:
    """Name a part of a step, for `torch.profiler` and for the running timer if there is one."""
    timer = StepTimer.running
    with record_function(f"smmix_pl.{name}"):
        if timer is None:
            yield
            return
        begin = timer.mark()
        yield
        timer.add(Span(name, begin, timer.mark()))


@contextmanager
def untimed() -> Iterator[None]:
    """Exclude the spans inside this context from the step."""
    timer, StepTimer.running = StepTimer.running, None
    try:
        yield
    finally:
        StepTimer.running = timer


def synchronized_time(device: torch.device) -> float:
    """Return the host's clock in seconds after all work queued on the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _has_passed(mark: Mark) -> bool:
    return isinstance(mark, float) or mark.query()


def _seconds_between(begin: Mark, end: Mark) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float) and isinstance(end, float)
        return end - begin
    return begin.elapsed_time(end) / 1000  # milliseconds
