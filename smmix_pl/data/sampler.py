"""Samplers that stay right on many ranks: the order follows from seed and epoch alone."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler


class RepeatedAugmentSampler(DistributedSampler[int]):
    """Repeated augmentation: each image several times in a row, the copies on different ranks.

    An epoch holds as many images as a plain one, so it sees ``1 / repeats`` of the data set
    (Hoffer et al., 2020; Berman et al., 2019, as DeiT uses it). A `DistributedSampler` because
    Lightning replaces any other kind on many ranks.

    Args:
        dataset: Training set.
        num_replicas: Number of ranks.
        rank: This rank.
        seed: Order of the first epoch; the order of epoch e follows from seed + e.
        repeats: How often each image appears, at least 1.
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int, rank: int, seed: int, repeats: int
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.repeats = repeats

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank's images for the current epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        mine = order.repeat_interleave(self.repeats)[self.rank :: self.num_replicas]
        return iter(mine[: self.num_samples].tolist())


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
