"""Random streams that are derived from the position in a run.

What is drawn at a step depends on the run's seed, the epoch, and the batch index. A resumed run
draws what the uninterrupted run would have drawn, without any saved generator state.
"""

import os
import random

import numpy as np
import torch

from smmix_pl.errors import InputError


def run_seed() -> int:
    """Return the seed set by `lightning.pytorch.seed_everything`, or 0 if it was not called.

    Raises:
        InputError: `PL_GLOBAL_SEED` is not a valid seed.
    """
    seed = os.environ.get("PL_GLOBAL_SEED", "0")
    if not seed.isdecimal() or int(seed) >= 2**32:
        raise InputError(f"PL_GLOBAL_SEED={seed}: must be in [0, {2**32 - 1}]. Fix or unset it.")
    return int(seed)


def seed_of(*position: int) -> int:
    """Return a 64-bit seed for a position, such as (seed, epoch, batch index).

    Args:
        position: Non-negative integers. Neighboring positions give unrelated seeds.
    """
    return int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0])


def reseed(*position: int, device: torch.device | None = None) -> None:
    """Seed the global generators of Python, NumPy, and torch for a position.

    `torch.manual_seed` would also record a stack trace for every kind of accelerator, at each call.

    Args:
        position: As in `seed_of`.
        device: Accelerator whose generator is seeded too, without waiting for it.
    """
    seed = seed_of(*position)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
