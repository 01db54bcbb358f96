"""What a LightningDataModule of images hands to the trainer: its loaders, and the last touch."""

import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, default_collate

from smmix_pl.data.reading import BadImage
from smmix_pl.data.sampler import EvaluationSampler, RepeatedAugmentSampler
from smmix_pl.data.transforms import TrainTransform, erasing, normalise
from smmix_pl.errors import InputError

Images = Dataset[Any]
"""A map-style data set of (image, class number); ``targets`` holds the class numbers alone."""


class Guarded(Dataset[Any]):
    """A map-style data set that gives a `BadImage` where its own would raise it.

    So the loader decides what to do about it, in the main process, where its sentence can be told
    without the traceback of a worker.
    """

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        try:
            return self.images[index]
        except BadImage as error:
            return error


def collate_good(items: list[Any]) -> tuple[Any, list[str]]:
    """A batch of the good items (null if there is none), and what is wrong with the others.

    Pillow's pixels come with the channels last in memory, and stay so until the device sorts them.
    """
    bad = [str(item) for item in items if isinstance(item, BadImage)]
    good = [(x[0].permute(1, 2, 0), x[1]) for x in items if not isinstance(x, BadImage)]
    if not good:
        return None, bad
    images, labels = default_collate(good)
    return (images.permute(0, 3, 1, 2), labels), bad


class ImageLoader(DataLoader[Any]):
    """Batches of (images, classes) or (images, names); images are uint8 ``(B, 3, H, W)``.

    Args:
        dataset: `Guarded` images.
        skip_bad: Leave bad images out, and tell which at the end of the epoch, instead of stopping.
        **options: Further arguments of the DataLoader; ``collate_fn`` is `collate_good`.

    Raises:
        InputError: While iterating: an image is bad; with ``skip_bad``, a whole batch is.
    """

    # Lightning makes loaders again for prediction, from the attributes that these arguments name.
    def __init__(self, dataset: Dataset[Any], skip_bad: bool = False, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.skip_bad = skip_bad

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of good images."""
        skipped: list[str] = []
        try:
            for batch, bad in super().__iter__():
                if bad and not self.skip_bad:
                    raise BadImage(f"{bad[0]}; mend or remove it, or set data.bad_images to skip")
                skipped += bad
                if batch is None:
                    raise InputError(f"no image of a whole batch can be read; the first: {bad[0]}")
                yield batch
        finally:
            if skipped:
                warnings.warn(_told(skipped), stacklevel=2)


def _told(skipped: list[str], shown: int = 20) -> str:
    lines = sorted(skipped)[:shown]
    rest = [f"and {len(skipped) - shown} more"] if len(skipped) > shown else []
    return "\n  ".join([f"{len(skipped)} bad images were skipped in this epoch:", *lines, *rest])


class Loaders(LightningDataModule):
    """Loaders of uint8 images, which are normalised on the device.

    Outside a trainer, `on_after_batch_transfer` has to be called on their batches.
    """

    batch_size: int
    num_workers: int
    repeats: int
    bad_images: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train_recipe: TrainTransform
    _sets: dict[str, Images]

    def train_dataloader(self) -> ImageLoader:
        """Shuffled full batches; their order follows from seed and epoch."""
        dataset = self._sets["train"]
        ranks, rank = self._ranks()
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        sampler: Sampler[int]
        if self.repeats > 1:
            sampler = RepeatedAugmentSampler(dataset, ranks, rank, seed, self.repeats)
        else:
            sampler = DistributedSampler(dataset, ranks, rank, seed=seed, drop_last=True)
        return self._loader(dataset, sampler, drop_last=True)

    def val_dataloader(self) -> Any:
        """Validation images, each once over all ranks."""
        return self._evaluation_loader(self._sets["val"])

    def test_dataloader(self) -> Any:
        """Test images, each once over all ranks."""
        return self._evaluation_loader(self._sets["test"])

    def predict_dataloader(self) -> Any:
        """Images and their file names, each once over all ranks."""
        return self._evaluation_loader(self._sets["predict"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the images of a batch on their device; random erasing follows that."""
        images, labels = batch
        images = normalise(images, self.mean, self.std)
        if self.trainer is not None and self.trainer.training and self.train_recipe.random_erasing:
            images = erasing(self.train_recipe, images.device)(images)
        if self.trainer is not None:  # a model in bfloat16 or float64 takes its own
            images = images.to(self.trainer.lightning_module.dtype)
        return images, labels

    def _loader(
        self, dataset: Images, sampler: Sampler[int], drop_last: bool = False
    ) -> ImageLoader:
        return ImageLoader(
            Guarded(dataset),
            skip_bad=self.bad_images == "skip",
            batch_size=self.batch_size,
            collate_fn=collate_good,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _evaluation_loader(self, dataset: Images) -> ImageLoader:
        return self._loader(dataset, EvaluationSampler(dataset, *self._ranks()))

    def _ranks(self) -> tuple[int, int]:
        """World size and rank; one rank where no trainer is attached."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
