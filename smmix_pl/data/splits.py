"""Which images of a training set are used, and which are kept for validation: by seed, by class."""

from collections.abc import Sequence

import numpy as np

from smmix_pl.errors import InputError


def stratified_split(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices so that every class gives the same share, rounded.

    Of each class at least one image is held out and, of two or more, at least one is kept.

    Args:
        labels: Class number of each image.
        share: Share that is held out, in (0, 1).
        seed: Chooses which.

    Returns:
        Indices kept and indices held out, both in order.
    """
    held = [
        members[: min(max(1, round(share * len(members))), max(1, len(members) - 1))]
        for members in _shuffled(labels, seed)
    ]
    is_held = np.zeros(len(labels), dtype=bool)
    is_held[np.concatenate(held)] = True
    return np.flatnonzero(~is_held).tolist(), np.flatnonzero(is_held).tolist()


def few_shot(labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """Indices of ``shots`` images of every class, in order.

    Raises:
        InputError: A class has fewer.
    """
    chosen = []
    for members in _shuffled(labels, seed):
        if len(members) < shots:
            raise InputError(
                f"data.shots is {shots}, but class {labels[members[0]]} has {len(members)} "
                "training images; lower data.shots"
            )
        chosen.append(members[:shots])
    return np.sort(np.concatenate(chosen)).tolist()


def training_part(
    labels: Sequence[int], held_out: float, share: float, shots: int | None, seed: int
) -> tuple[list[int], list[int]]:
    """Indices to train on and indices to validate on.

    What is held out follows from ``held_out`` and ``seed`` alone, so that runs on a tenth and on
    all of train are compared on the same validation images.

    Args:
        labels: Class number of each image.
        held_out: Share of every class that is kept for validation, in [0, 1).
        share: Share of the rest to train on, in (0, 1].
        shots: Or else, this many images of every class.
        seed: Chooses which.
    """
    kept, held = list(range(len(labels))), list[int]()
    if held_out:
        kept, held = stratified_split(labels, held_out, seed)
    if shots is not None:
        kept = [kept[i] for i in few_shot([labels[i] for i in kept], shots, seed)]
    elif share < 1:
        kept = [kept[i] for i in stratified_split([labels[i] for i in kept], share, seed)[1]]
    return kept, held


def _shuffled(labels: Sequence[int], seed: int) -> list[np.ndarray]:
    """Indices of each class in random order."""
    rng = np.random.default_rng(seed)
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    return [rng.permutation(members) for members in by_class]
