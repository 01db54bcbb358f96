"""Signals that ask a run to stop. Imports nothing heavy, so that it is in effect at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from smmix_pl.runs.slurm import requeue

STOPPED = 75
"""Exit status of a run that was stopped and can be resumed (EX_TEMPFAIL in sysexits.h)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
END = signal.SIGHUP
"""Signal by which a rank ends the ranks that it launched."""
LAUNCHER = "SMMIX_LAUNCHER"
"""Environment variable with the process id of the command, which the ranks it launches inherit."""
Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """The run was stopped by a signal."""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit with status 75 on a stop signal, and restore the earlier handlers afterward.

    `Preemption` takes over while a Trainer runs. In a SLURM job, SIGUSR1 also requeues the job.
    """
    first = LAUNCHER not in os.environ
    if first:
        os.environ[LAUNCHER] = str(os.getpid())
    before = listen(_exit)
    try:
        yield
    finally:
        restore(before)
        if first:
            del os.environ[LAUNCHER]


def launcher() -> int | None:
    """Return the process id of the rank that launched this one, if Lightning did so."""
    parent = os.getppid()
    is_rank = os.environ.get("LOCAL_RANK", "0") != "0"
    return parent if is_rank and os.environ.get(LAUNCHER) == str(parent) else None


def passed_on(number: int) -> bool:
    """Pass a signal on to the rank that launched this one.

    The launcher decides for all ranks. Until it answers by `END`, this rank continues, because the
    others wait for it in their next reduction.

    Returns:
        False if this rank was not launched by another one, and decides itself.

    Raises:
        Stopped: The signal is the launcher's answer.
    """
    rank_0 = launcher()
    if rank_0 is None:
        return False
    if number == END:
        raise Stopped(status_of_stop(False))
    os.kill(rank_0, number)
    return True


def status_of_stop(is_rank_0: bool) -> int:
    """Return the exit status of a stopped rank.

    For any other status than 0 of a rank that Lightning launched, it kills the launcher. In a
    program of its own, where `LAUNCHER` is not set, all ranks but the first may be such ones.
    """
    decides = is_rank_0 or (LAUNCHER in os.environ and launcher() is None)
    return STOPPED if decides else 0


def listen(handler: Handler, signals: Iterable[int] = SIGNALS) -> dict[int, Any]:
    """Install a handler in this process, but not in processes forked from it.

    A rank that another one launched also listens to `END`.

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

    ends = () if launcher() is None else (END,)
    return {number: signal.signal(number, handle) for number in (*signals, *ends)}


def restore(handlers: Mapping[int, Any]) -> None:
    """Reinstall earlier signal handlers."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    if passed_on(number):
        return
    name = signal.Signals(number).name
    print(f"Stopped by {name} before the run started; nothing to save.", file=sys.stderr)
    if number == signal.SIGUSR1 and os.environ.get("SLURM_PROCID", "0") == "0":
        requeue()
    raise Stopped(STOPPED)
