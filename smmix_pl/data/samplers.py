"""Samplers that stay right on many ranks: the order follows from seed and epoch alone."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler

from smmix_pl.seeding import seed_of


class Draw(int):
    """The index of an image, with the seed of this one appearance of it."""

    seed: int

    def __new__(cls, index: int, seed: int) -> "Draw":
        """An index that carries a seed, also into worker processes."""
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self) -> tuple[Any, ...]:
        return Draw, (int(self), self.seed)


class TrainingSampler(DistributedSampler[int]):
    """Training images in an order that follows from seed and epoch, from any place in it.

    With repeated augmentation each image comes several times in a row, the copies on different
    ranks; an epoch then holds as many images as a plain one, so it sees ``1 / repeats`` of the data
    set (Hoffer et al., 2020; Berman et al., 2019, as DeiT uses it). A `DistributedSampler` because
    Lightning replaces any other kind on many ranks.

    Args:
        dataset: Training set.
        num_replicas: Number of ranks.
        rank: This rank.
        seed: Order of the first epoch; the order of epoch e follows from seed + e.
        repeats: How often each image appears, at least 1.
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int, rank: int, seed: int, repeats: int = 1
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.repeats = repeats
        self.first = 0
        """Images of this rank that the next iteration leaves out: a resumed run has seen them."""

    def __iter__(self) -> Iterator[int]:
        """What is left of this rank's images in the current epoch."""
        places = range(self.rank, self.total_size, self.num_replicas)
        for place, index in zip(places[self.first :], self.order()[self.first :], strict=True):
            yield Draw(index, seed_of(self.seed, self.epoch, place))

    def order(self) -> list[int]:
        """Indices of all of this rank's images in the current epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        mine = order.repeat_interleave(self.repeats)[self.rank :: self.num_replicas]
        return mine[: self.num_samples].tolist()


class EvaluationSampler(DistributedSampler[int]):
    """Every image once over all ranks, in order; no image is repeated to fill up the last batch."""

    def __init__(self, dataset: Dataset[Any], num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.indices = range(rank, len(dataset), num_replicas)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank's images."""
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
