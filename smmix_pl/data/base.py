"""The LightningDataModule that every data set shares: its loaders, and what a model must know."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, Subset

from smmix_pl.data.files import ImageFiles, NamedImages
from smmix_pl.data.sampler import EvaluationSampler, RepeatedAugmentSampler
from smmix_pl.data.transforms import (
    EvalTransform,
    TrainTransform,
    Transform,
    eval_transform,
    train_transform,
)
from smmix_pl.errors import InputError

Split = Literal["train", "val", "test"]
Images = Dataset[Any]
"""A map-style data set of (image, class number); ``targets`` holds the class numbers alone."""


class ImageData(LightningDataModule, ABC):
    """Images and class numbers of one data set, for training, validation, test and prediction.

    A subclass says where its images are (`images`) and what its classes are called
    (`find_classes`); it may fetch them in Lightning's ``prepare_data``. Model settings that follow
    from the data (classes, image size, mean and std, batch size) are read from here by the command
    line, so nobody says them twice.

    Args:
        root: Folder that holds the data set.
        image_size: Height and width in pixels, or one number for both.
        batch_size: Images per device and step.
        num_workers: Loader processes per device; null takes one per core, at most 8.
        mean: Channel means for normalisation; null takes the data set's own.
        std: Channel standard deviations, likewise.
        train_transform: Augmentation.
        eval_transform: Preparation of validation, test and prediction images.
        repeats: Repeated augmentation: how often each image appears in an epoch; 1 is off.
        held_out: Share of train that is kept for validation, the same share of every class; 0
            validates on the set's own validation (or, without one, test) part.
        split_seed: Chooses what is held out.
        predict_dir: Folder of images for ``predict``, searched recursively; null predicts the test
            part.
        download: Fetch the data set into root if it is not there and its owner offers it openly.
    """

    own_mean: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_MEAN
    own_std: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_STD

    def __init__(
        self,
        root: str = "data",
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 128,
        num_workers: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        train_transform: TrainTransform = TrainTransform(),
        eval_transform: EvalTransform = EvalTransform(),
        repeats: int = 1,
        held_out: float = 0.0,
        split_seed: int = 0,
        predict_dir: str | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        _check_positive("batch_size", batch_size, "the paper's recipe takes 1024 over all devices")
        _check_positive("repeats", repeats, "1 turns repeated augmentation off")
        if not 0 <= held_out < 1:
            raise InputError(f"data.held_out is {held_out}; a share of train is in [0, 1)")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_positive("image_size", min(height, width), "DeiT takes 224")
        self.root = Path(root).expanduser()
        self.image_size = (height, width)
        self.batch_size = batch_size
        self.num_workers = _cores() if num_workers is None else num_workers
        self.mean, self.std = mean or self.own_mean, std or self.own_std
        self.train_recipe = train_transform
        self.eval_recipe = eval_transform
        self.repeats = repeats
        self.held_out = held_out
        self.split_seed = split_seed
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
        self.download = download
        self.class_names: list[str] = self.find_classes()
        self.num_classes = len(self.class_names)
        self._sets: dict[str, Images] = {}

    @abstractmethod
    def find_classes(self) -> list[str]:
        """Class names in the order of their numbers; cheap, as it runs when the command starts.

        Raises:
            InputError: The root does not hold this data set.
        """

    @abstractmethod
    def images(self, split: Split, transform: Transform) -> Images:
        """One part of the data set; a set without a validation part gives its test part for it.

        Raises:
            InputError: The part is missing, or an image's class is unknown.
        """

    def setup(self, stage: str) -> None:
        """Open what a stage needs, so that what is missing is told before the first step."""
        splits: dict[str, tuple[Any, ...]] = {"fit": ("train", "val"), "validate": ("val",)}
        for split in splits.get(stage, (stage,)):
            self._sets[split] = self._open(split)
        if stage == "fit":
            self._check_batch(len(self._sets["train"]))  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
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

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation images, each once over all ranks."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test images, each once over all ranks."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Images and their file names, each once over all ranks."""
        return self._evaluation_loader("predict")

    def _open(self, split: Split | Literal["predict"]) -> Images:
        if split == "train":
            recipe = train_transform(self.train_recipe, self.image_size, self.mean, self.std)
        else:
            recipe = eval_transform(self.eval_recipe, self.image_size, self.mean, self.std)
        if split == "predict":
            if self.predict_dir is not None:
                return ImageFiles(self.predict_dir, recipe)
            return NamedImages(self.images("test", recipe))
        if self.held_out and split in ("train", "val"):
            images: Any = self.images("train", recipe)
            kept, held = stratified_split(images.targets, self.held_out, self.split_seed)
            return Subset(images, kept if split == "train" else held)
        return self.images(split, recipe)

    def _loader(
        self, dataset: Images, sampler: Sampler[int], drop_last: bool = False
    ) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        dataset = self._sets[split]
        return self._loader(dataset, EvaluationSampler(dataset, *self._ranks()))

    def _ranks(self) -> tuple[int, int]:
        """World size and rank; one rank where no trainer is attached."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _check_batch(self, images: int) -> None:
        ranks = self._ranks()[0]
        if images < self.batch_size * ranks:
            raise InputError(
                f"one step takes {self.batch_size} images on each of {ranks} devices, but the "
                f"training set in {self.root} has {images}; lower data.batch_size"
            )


def stratified_split(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices so that every class gives the same share, rounded, and at least one image.

    Args:
        labels: Class number of each image.
        share: Share that is held out, in (0, 1).
        seed: Chooses which.

    Returns:
        Indices kept and indices held out, both in order.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(labels)
    held = [
        rng.permutation(members)[: max(1, round(share * len(members)))]
        for members in (np.flatnonzero(classes == label) for label in np.unique(classes))
    ]
    is_held = np.zeros(len(classes), dtype=bool)
    is_held[np.concatenate(held)] = True
    return np.flatnonzero(~is_held).tolist(), np.flatnonzero(is_held).tolist()


def _check_positive(name: str, value: int, hint: str) -> None:
    if value < 1:
        raise InputError(f"data.{name} is {value}; it must be at least 1 ({hint})")


def _cores() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
