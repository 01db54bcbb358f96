"""Which images of a training set are used, and which are kept for validation: by seed, by class."""

from collections.abc import Callable, Sequence

import numpy as np

from smmix_pl.errors import InputError


def stratified_split(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices so that every class gives the same share, rounded.

    Of each class at least one image is kept and, of two or more, at least one is held out.

    Args:
        labels: Class number of each image.
        share: Share that is held out, in (0, 1).
        seed: Chooses which.

    Returns:
        Indices kept and indices held out, both in order.
    """
    held = _some(labels, seed, lambda count: min(max(1, round(share * count)), count - 1))
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return kept.tolist(), held.tolist()


def few_shot(labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """Indices of ``shots`` images of every class, in order.

    Raises:
        InputError: A class has fewer.
    """
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < shots:
            raise InputError(
                f"data.shots is {shots}, but class {label} has {count} training images; lower "
                "data.shots"
            )
    return _some(labels, seed, lambda count: shots).tolist()


def training_split(
    labels: Sequence[int], held_out: float, share: float, shots: int | None, seed: int
) -> tuple[list[int], list[int]]:
    """Indices to train on and indices to validate on.

    What is held out follows from ``held_out`` and ``seed`` alone, so that runs on a tenth and on
    all of train are compared on the same validation images.

    Args:
        labels: Class number of each image.
        held_out: Share of every class that is kept for validation, in [0, 1).
        share: Share of the rest to train on, in (0, 1]; at least one image of every class.
        shots: Or else, this many images of every class.
        seed: Chooses which.
    """
    kept, held = list(range(len(labels))), list[int]()
    if held_out:
        kept, held = stratified_split(labels, held_out, seed)
    if shots is not None:
        kept = [kept[i] for i in few_shot([labels[i] for i in kept], shots, seed)]
    elif share < 1:
        part = _some([labels[i] for i in kept], seed, lambda count: max(1, round(share * count)))
        kept = [kept[i] for i in part]
    return kept, held


def _some(labels: Sequence[int], seed: int, wanted: Callable[[int], int]) -> np.ndarray:
    """Indices, in order, of random images: of each class as many as wanted of its count."""
    rng = np.random.default_rng(seed)
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [rng.permutation(members)[: wanted(len(members))] for members in by_class]
    return np.sort(np.concatenate(chosen))
