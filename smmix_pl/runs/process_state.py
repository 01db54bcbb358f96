"""Global state of the process that a run changes."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smmix_pl.step_timer import StepTimer

VARIABLES = (
    *("CUBLAS_WORKSPACE_CONFIG", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
    *("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "WORLD_SIZE"),
)
"""Environment variables that Lightning sets."""


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Restore torch's global switches, Lightning's environment variables, and the SIGINT handler.

    Without this, a deterministic run would make later runs in the same process deterministic, and
    an interrupted one would leave Ctrl+C ignored.
    """
    variables = {name: os.environ.get(name) for name in VARIABLES}
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        StepTimer.running = None
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
