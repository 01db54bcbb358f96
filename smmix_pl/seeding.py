"""Random streams that follow from where a run is, so that nothing has to be saved to go on exactly.

What is drawn at a step follows from the run's seed, the epoch and the place in it; a resumed run
draws what the straight one would have drawn.
"""

import os
import random

import numpy as np
import torch

from smmix_pl.errors import InputError


def run_seed() -> int:
    """The seed of this run, as `lightning.pytorch.seed_everything` leaves it; 0 without one."""
    seed = os.environ.get("PL_GLOBAL_SEED", "0")
    if not seed.isdecimal() or int(seed) >= 2**32:
        raise InputError(f"PL_GLOBAL_SEED is {seed!r}; it must be in [0, {2**32 - 1}], or unset")
    return int(seed)


def seed_of(*place: int) -> int:
    """One 64-bit seed for a place, such as (run's seed, epoch, batch); near places share nothing.

    Args:
        place: Numbers of at least 0.
    """
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])


def reseed(*place: int, devices: bool = False) -> None:
    """Begin the global streams of Python, numpy and torch anew at a place.

    Args:
        place: As of `seed_of`.
        devices: Also the generators of all accelerators; nothing waits for them.
    """
    seed = seed_of(*place)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
