"""Samplers for one rank or many. The order depends on seed and epoch alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler

from smmix_pl.seeding import seed_of


class Draw(int):
    """Index of an image, with the seed of its augmentation. It survives pickling to workers."""

    seed: int

    def __new__(cls, index: int, seed: int) -> "Draw":
        """Attach a seed to an index."""
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self) -> tuple[Any, ...]:
        return Draw, (int(self), self.seed)


class TrainingSampler(DistributedSampler[int]):
    """Shuffled training images, in an order that can start anywhere in an epoch.

    With repeated augmentation, each image appears several times in a row, with its copies on
    different ranks. An epoch has as many images as without it, so it covers `1 / repeats` of the
    dataset (Hoffer et al., 2020; Berman et al., 2019; used by DeiT). Lightning replaces other
    samplers than `DistributedSampler` on several ranks.

    Args:
        dataset: Training set.
        num_replicas: Number of ranks.
        rank: Index of this rank.
        seed: Base seed. The order of epoch e depends on seed + e.
        repeats: Number of appearances of each image, at least 1.
        weights: Draw images with replacement, with these weights. None shuffles them.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        num_replicas: int,
        rank: int,
        seed: int,
        repeats: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.repeats = repeats
        self.weights = weights
        self.first = 0
        """Number of images of this rank to skip in the next iteration, when a run resumes."""

    def __iter__(self) -> Iterator[int]:
        """Yield the remaining images of this rank in the current epoch."""
        places = range(self.rank, self.total_size, self.num_replicas)
        for place, index in zip(places[self.first :], self.order()[self.first :], strict=True):
            yield Draw(index, seed_of(self.seed, self.epoch, place))

    def order(self) -> list[int]:
        """Return the indices of all images of this rank in the current epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        count = len(self.dataset)  # type: ignore[arg-type]
        if self.weights is None:
            order = torch.randperm(count, generator=generator)
        else:
            weights = torch.tensor(self.weights, dtype=torch.float64)
            order = torch.multinomial(weights, count, replacement=True, generator=generator)
        mine = order.repeat_interleave(self.repeats)[self.rank :: self.num_replicas]
        return mine[: self.num_samples].tolist()
