"""What the LightningDataModules of every task share: settings, loaders, and order of images."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from smmix_pl.checks import in_range, one_of
from smmix_pl.data.device_cache import DeviceCache
from smmix_pl.data.io.download import Archive, fetch
from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.io.images import existing_folder
from smmix_pl.data.loaders import CatchBadImages, ImageLoader, collate_lists
from smmix_pl.data.samplers import TrainingSampler
from smmix_pl.data.transforms import normalize
from smmix_pl.errors import InputError
from smmix_pl.seeding import run_seed

Split = Literal["train", "val", "test"]
Images = Dataset[Any]
"""Map-style dataset."""
LIMIT = 1e6
"""Largest mean and inverse of the smallest deviation; others overflow in normalization."""
SPLITS_OF_STAGE: dict[str, tuple[Any, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


class BaseData(LightningDataModule, ABC):
    """Images of one dataset, for training, validation, and test.

    A subclass implements `class_names`, and `setup`, which fills `_sets`.

    Args:
        root: Folder of the dataset.
        image_size: Height and width in pixels, or one number for both.
        batch_size: Images per device and step.
        num_workers: Loader processes per device; `null` uses one per core, at most 8.
        mean: Channel means for normalization; `null` uses the dataset's own.
        std: Channel standard deviations for normalization; `null` uses the dataset's own.
        download: Download the dataset into root if it is missing and its owner offers it openly.
        bad_images: Handling of unreadable images: `stop` or `skip`.
    """

    own_mean: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_MEAN
    own_std: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_STD
    archives: ClassVar[tuple[Archive, ...]] = ()
    """Downloads offered by the owner."""
    reads_root: ClassVar[bool] = False
    """The files are in `root`, which must exist unless they are downloaded."""
    repeats: int = 1
    """Appearances of each training image in an epoch (repeated augmentation)."""
    sampling_weights: list[float] | None = None
    """Weight of each training image in a draw with replacement; None shuffles them."""
    predict_dir: Path | None = None
    """Folder of images for `predict`; None predicts the test set."""

    def __init__(
        self,
        root: str,
        image_size: int | tuple[int, int],
        batch_size: int,
        num_workers: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        download: bool = False,
        bad_images: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        for name, value in (("image_size", image_size), ("root", root)):
            if value is None:
                raise InputError(f"data.{name}=null: must be set.")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.root = Path(root).expanduser()
        self.image_size = (height, width)
        self.batch_size = batch_size
        self.num_workers = _cores() if num_workers is None else num_workers
        self.mean, self.std = mean or self.own_mean, std or self.own_std
        self.download = download
        self.bad_images = bad_images
        self._sets: dict[str, Images] = {}
        self._check_base_settings()

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Class names in the order of class indices."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def collate(self, items: list[Any]) -> tuple[Any, dict[int, str]]:
        """Return a batch of the good items, or None without any, and the others' errors by place.

        The parts of a batch are lists, because images may differ in size.
        """
        return collate_lists(items)

    def normalized(self, images: list[Tensor]) -> list[Tensor]:
        """Normalize uint8 images of differing sizes, in the dtype of the model."""
        dtype = self.trainer.lightning_module.dtype if self.trainer else torch.float32
        return [normalize(image, self.mean, self.std).to(dtype) for image in images]

    def prepare_data(self) -> None:
        """Download the dataset if requested. Lightning calls this in one process per node.

        Raises:
            InputError: The download failed, or the root does not hold this dataset.
        """
        if self.download:
            fetch(self.archives, self.root)
        _ = self.class_names  # missing files fail here, before a logger starts a run

    @property
    def counts(self) -> dict[str, int]:
        """Number of images in each open split."""
        sets: dict[str, Any] = self._sets
        return {split: len(images) for split, images in sets.items()}

    def train_dataloader(self) -> ImageLoader:
        """Return shuffled full batches. Their order depends on seed and epoch alone."""
        dataset = self._sets["train"]
        ranks, rank = self._ranks()
        weights = self.sampling_weights
        sampler = TrainingSampler(dataset, ranks, rank, run_seed(), self.repeats, weights)
        return self._loader(dataset, sampler, drop_last=True, first_batch=self._next_batch)

    def val_dataloader(self) -> Any:
        """Return validation images, each exactly once over all ranks."""
        return self._evaluation_loader(self._sets["val"])

    def test_dataloader(self) -> Any:
        """Return test images, each exactly once over all ranks."""
        return self._evaluation_loader(self._sets["test"])

    def _check_base_settings(self) -> None:
        in_range("data.batch_size", self.batch_size, 1, hint="The paper uses 1024 over all devices")
        in_range("data.image_size", min(self.image_size), 1, hint="DeiT uses 224")
        in_range("data.num_workers", self.num_workers, 0, 512, "0 loads in the main process")
        one_of("data.bad_images", self.bad_images, ("stop", "skip"))
        for channel in self.mean:
            in_range("data.mean", channel, -LIMIT, LIMIT, "Use the means of images in [0, 1]")
        for channel in self.std:
            in_range("data.std", channel, 1 / LIMIT, LIMIT, "Use those of images in [0, 1]")
        name = type(self).__name__
        if self.download and not self.archives:
            raise InputError(
                f"data.download=true: {name} has no open download. Get it from its owner, unpack "
                f"it into {self.root}, and set data.download=false."
            )
        if self.reads_root and not self.download:
            existing_folder(self.root)

    def _check_count(self, split: str, images: int) -> None:
        ranks = self._ranks()[0]
        place = self.predict_dir if split == "predict" and self.predict_dir else self.root
        if split == "train" and images < self.batch_size * ranks:
            raise InputError(
                f"data.batch_size={self.batch_size}: larger than the training set in {place} "
                f"({counted(images, 'image')} for {counted(ranks, 'device')}). Lower "
                "data.batch_size."
            )
        if images < ranks:
            raise InputError(
                f"trainer.devices: {counted(images, f'{split} image')} in {place} for {ranks} "
                "devices. Use fewer devices."
            )

    def _loader(self, dataset: Images, sampler: Sampler[int], **options: Any) -> ImageLoader:
        workers = 0 if isinstance(dataset, DeviceCache) else self.num_workers
        return ImageLoader(
            CatchBadImages(dataset),
            skip_bad=self.bad_images == "skip",
            batch_size=self.batch_size,
            collate_fn=self.collate,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def _evaluation_loader(self, dataset: Images) -> ImageLoader:
        sampler = UnrepeatedDistributedSampler(dataset, *self._ranks(), shuffle=False)
        return self._loader(dataset, sampler)

    def _next_batch(self) -> int:
        """Return the index of the next training batch, above 0 if a run resumes in mid-epoch."""
        # An epoch's iterator starts at its first batch, after Lightning has restored progress
        if self.trainer is None or not self.trainer.training:
            return 0
        return self.trainer.fit_loop.batch_idx + 1

    def _ranks(self) -> tuple[int, int]:
        """Return the number of ranks and this rank, (1, 0) without a trainer."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)
