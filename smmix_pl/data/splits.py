"""Stratified, seeded choices of training and validation images."""

from collections.abc import Callable, Sequence

import numpy as np

from smmix_pl.errors import InputError
from smmix_pl.metrics import OUTLIER


def stratified_split(
    labels: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Hold out the same fraction of every class, rounded.

    At least one image of each class is kept. Of classes with two or more, at least one is held out.

    Args:
        labels: Class index of each image.
        fraction: Fraction to hold out, in (0, 1).
        seed: Seed of the random choice.

    Returns:
        Sorted indices of kept images, and of held-out images.
    """
    held_out = _choose(labels, seed, lambda count: min(max(1, round(fraction * count)), count - 1))
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    return kept.tolist(), held_out.tolist()


def few_shot(labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """Return the sorted indices of `shots` images of every class.

    Raises:
        InputError: A class has fewer images.
    """
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < shots:
            group = "the group without labels" if label == OUTLIER else f"class {label}"
            raise InputError(
                f"data.shots={shots}: {group} has only {count} training images. Lower data.shots."
            )
    return _choose(labels, seed, lambda count: shots).tolist()


def training_split(
    labels: Sequence[int], held_out: float, train_fraction: float, shots: int | None, seed: int
) -> tuple[list[int], list[int]]:
    """Return the sorted indices of training images, and of validation images.

    Held-out images depend on `held_out` and `seed` alone. Runs on a tenth of the training set and
    on all of it are validated on the same images.

    Args:
        labels: Class index of each image.
        held_out: Fraction of every class to hold out for validation, in [0, 1).
        train_fraction: Fraction of the rest to train on, in (0, 1]. At least one image per class.
        shots: Number of training images per class, instead of `train_fraction`.
        seed: Seed of the random choices.

    Raises:
        InputError: A class has fewer than `shots` images.
    """
    kept, validation = list(range(len(labels))), list[int]()
    if held_out:
        kept, validation = stratified_split(labels, held_out, seed)
    kept_labels = [labels[i] for i in kept]
    if shots is not None:
        kept = [kept[i] for i in few_shot(kept_labels, shots, seed)]
    elif train_fraction < 1:
        chosen = _choose(kept_labels, seed, lambda count: max(1, round(train_fraction * count)))
        kept = [kept[i] for i in chosen]
    return kept, validation


def _choose(labels: Sequence[int], seed: int, wanted: Callable[[int], int]) -> np.ndarray:
    """Return the sorted indices of random images: `wanted(count)` of each class."""
    rng = np.random.default_rng(seed)
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [rng.permutation(members)[: wanted(len(members))] for members in by_class]
    return np.sort(np.concatenate(chosen))
