"""Signals that ask a run to stop. Imports nothing heavy, so that it is in effect at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from smmix_pl.runs.slurm import requeue

STOPPED = 75
"""Exit status of a run that was stopped and can be resumed (EX_TEMPFAIL in sysexits.h)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """The run was stopped by a signal."""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit with status 75 on a stop signal, and restore the earlier handlers afterward.

    `Preemption` takes over while a Trainer runs. In a SLURM job, SIGUSR1 also requeues the job.
    """
    before = listen(_exit)
    try:
        yield
    finally:
        restore(before)


def listen(handler: Handler, signals: tuple[int, ...] = SIGNALS) -> dict[int, Any]:
    """Install a handler in this process, but not in processes forked from it.

    Returns:
        The earlier handlers, for `restore`. Empty in a thread, which cannot change handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        elif number == signal.SIGTERM:  # a worker of a DataLoader, for example
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return {number: signal.signal(number, handle) for number in signals}


def restore(handlers: Mapping[int, Any]) -> None:
    """Reinstall earlier signal handlers."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    name = signal.Signals(number).name
    print(f"Stopped by {name} before the run started; nothing to save.", file=sys.stderr)
    if number == signal.SIGUSR1 and os.environ.get("SLURM_PROCID", "0") == "0":
        requeue()
    raise Stopped(STOPPED)
