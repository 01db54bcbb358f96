"""The LightningDataModule that all datasets share."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset, Sampler, Subset

from smmix_pl.checks import in_range, one_of
from smmix_pl.data.device_augment import augment
from smmix_pl.data.device_cache import DeviceCache
from smmix_pl.data.device_crop import crop_and_resize
from smmix_pl.data.drawn_operations import DrawnBatch
from smmix_pl.data.io.download import Archive, fetch
from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.io.images import existing_folder, reading_lists
from smmix_pl.data.loaders import CatchBadImages, ImageLoader, collate_good, default_workers
from smmix_pl.data.samplers import TrainingSampler
from smmix_pl.data.splits import training_split
from smmix_pl.data.transforms import (
    EvalTransform,
    TrainTransform,
    Transform,
    cached_transform,
    drawn_crop,
    erasing,
    eval_transform,
    fill_color,
    normalize,
    train_transform,
)
from smmix_pl.data.unlabeled import ImageFiles, NamedImages
from smmix_pl.data.validation import (
    Sizes,
    check_names,
    check_range,
    examine_splits,
)
from smmix_pl.errors import InputError
from smmix_pl.seeding import reseed, run_seed

Split = Literal["train", "val", "test"]
Images = Dataset[Any]
"""Map-style dataset of (image, class index); `targets` holds the class indices alone."""
LIMIT = 1e6
"""Largest mean and inverse of the smallest deviation; others overflow in normalization."""
SPLITS_OF_STAGE: dict[str, tuple[Any, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


class ImageData(LightningDataModule, ABC):
    """Images and class indices of one dataset, for training, validation, test, and prediction.

    A subclass implements `images` and `find_classes`. The command line links the number of classes,
    image size, mean, std, and batch size to the model.

    The constructor validates settings, `prepare_data` downloads once per node, and `setup` opens
    the files. Outside a trainer, call `on_after_batch_transfer` on batches to normalize them.

    Args:
        root: Folder of the dataset.
        image_size: Height and width in pixels, or one number for both.
        batch_size: Images per device and step.
        num_workers: Loader processes per device; `null` uses one per core, at most 8.
        mean: Channel means for normalization. `null` uses those of the weights that
            `model.pretrained` loads, else the dataset's own.
        std: Channel standard deviations for normalization; `null` uses the dataset's own.
        train_transform: Augmentation of training images.
        eval_transform: Preparation of validation, test, and prediction images.
        repeats: Repeated augmentation: appearances of each image in an epoch; 1 turns it off.
        held_out: Fraction of every class of the training set to hold out for validation, in [0, 1).
            With 0, the validation set of the dataset is used or, without one, its test set.
        train_fraction: Fraction of every class to train on, after holding out, in (0, 1].
        shots: Number of training images per class, instead of `train_fraction`.
        split_seed: Seed of the choice of held-out and training images.
        predict_dir: Folder of images for `predict`, searched recursively; `null` predicts the test
            set.
        download: Download the dataset into root if it is missing and its owner offers it openly.
        bad_images: Handling of unreadable images: `stop` raises an error that names the image,
            `skip` skips them and lists them at the end of the epoch.
        cache: Keep decoded images: `host` keeps those of image files in memory. `device` keeps the
            training images on the device, where batches are cropped and augmented; for small images
            of one size. `null` keeps none.
        augment_on: Where training images are flipped, augmented, and jittered, with the same random
            numbers: `host`, one by one in the loader processes, or `device`, in batches.
        check: Read every image that the command needs before it starts.
    """

    own_mean: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_MEAN
    own_std: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_STD
    archives: ClassVar[tuple[Archive, ...]] = ()
    """Downloads offered by the owner."""
    class_count: int | None = None
    """Number of classes if the owner fixes it, so that it is known before the files exist."""
    sizes: Sizes | None = None
    """Number of images in each split, as stated by the owner."""
    class_subset: list[int] | None = None
    """Class indices that evaluation is restricted to (ImageNet-A, -R, -O). Set by `setup`."""
    has_outliers: ClassVar[bool] = False
    """Some images belong to no class and have the label -1."""
    cacheable: ClassVar[bool] = True
    """Decoded images can be kept in memory."""
    trainable: ClassVar[bool] = True
    """The dataset has a training split; otherwise it is for testing only."""
    reads_root: ClassVar[bool] = False
    """The files are in `root`, which must exist unless they are downloaded."""

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
        train_fraction: float = 1.0,
        shots: int | None = None,
        split_seed: int = 0,
        predict_dir: str | None = None,
        download: bool = False,
        bad_images: Literal["stop", "skip"] = "stop",
        cache: Literal["host", "device"] | None = None,
        augment_on: Literal["host", "device"] = "host",
        check: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("image_size", image_size), ("root", root)):
            if value is None:
                raise InputError(f"data.{name}=null: must be set.")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.root = Path(root).expanduser()
        self.image_size = (height, width)
        self.batch_size = batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.mean, self.std = mean or self.own_mean, std or self.own_std
        self.train_recipe, self.eval_recipe = train_transform, eval_transform
        self.repeats = repeats
        self.held_out, self.train_fraction, self.shots = held_out, train_fraction, shots
        self.split_seed = split_seed
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
        self.download = download
        self.bad_images = bad_images
        self.cache = cache
        self.augment_on = "device" if cache == "device" else augment_on
        self.check = check
        self._sets: dict[str, Images] = {}
        self._check_settings()

    @abstractmethod
    def find_classes(self) -> list[str]:
        """Return the class names in the order of class indices.

        Raises:
            InputError: The root does not hold this dataset.
        """

    @abstractmethod
    def images(self, split: Split, transform: Transform) -> Images:
        """Open one split. A dataset without a validation split opens its test split instead.

        Raises:
            InputError: The split is missing, or a label is unknown.
        """

    @cached_property
    def class_names(self) -> list[str]:
        """Class names in the order of class indices, read on first access."""
        with reading_lists(self.root):
            names = self.find_classes()
        check_names(names, str(self.root))
        if self.class_count not in (None, len(names)):
            raise InputError(
                f"data.root={self.root}: {counted(len(names), 'class')} found, but "
                f"{type(self).__name__} has {self.class_count}. Unpack the complete archive again, "
                "or use smmix_pl.data.Folder for a subset."
            )
        return names

    @property
    def num_classes(self) -> int:
        """Number of classes. It is read from the files unless the owner fixes it."""
        return len(self.class_names) if self.class_count is None else self.class_count

    def prepare_data(self) -> None:
        """Download the dataset if requested. Lightning calls this in one process per node.

        Raises:
            InputError: The download failed, or the root does not hold this dataset.
        """
        if self.download:
            fetch(self.archives, self.root)
        _ = self.class_names  # missing files fail here, before a logger starts a run

    def setup(self, stage: str) -> None:
        """Open the splits of a stage.

        Raises:
            InputError: Files or labels are missing or wrong, or there are too few images.
        """
        splits = SPLITS_OF_STAGE.get(stage, (stage,))
        _ = self.class_names  # also sets what depends on them, such as `class_subset`
        for split in splits:
            self._sets[split] = self._open(split)
            self._check_count(split, len(self._sets[split]))  # type: ignore[arg-type]
        if self.check and stage != "predict":
            for report in examine_splits(self, splits):
                if self._ranks()[1] == 0:
                    print(report)
                report.require_good()

    def part_of(self, split: Split) -> Split:
        """Return the split of the dataset that the images of a split come from."""
        return "train" if split == "val" and self.held_out else split

    @property
    def evaluated_classes(self) -> dict[int, str]:
        """Names of the classes that the dataset has images of, by class index."""
        names = self.class_names
        return {number: names[number] for number in self.class_subset or range(len(names))}

    @property
    def counts(self) -> dict[str, int]:
        """Number of images in each open split."""
        sets: dict[str, Any] = self._sets
        return {split: len(images) for split, images in sets.items()}

    def train_dataloader(self) -> ImageLoader:
        """Return shuffled full batches. Their order depends on seed and epoch alone."""
        dataset = self._sets["train"]
        ranks, rank = self._ranks()
        sampler = TrainingSampler(dataset, ranks, rank, run_seed(), self.repeats)
        return self._loader(dataset, sampler, drop_last=True, first_batch=self._next_batch)

    def plain_train_dataloader(self) -> ImageLoader:
        """Return training images prepared for evaluation, each exactly once over all ranks."""
        images = self.images("train", eval_transform(self.eval_recipe, self.image_size))
        return self._evaluation_loader(Subset(images, self._training_split(images)[0]))

    def val_dataloader(self) -> Any:
        """Return validation images, each exactly once over all ranks."""
        return self._evaluation_loader(self._sets["val"])

    def test_dataloader(self) -> Any:
        """Return test images, each exactly once over all ranks."""
        return self._evaluation_loader(self._sets["test"])

    def predict_dataloader(self) -> Any:
        """Return images and file names, each exactly once over all ranks."""
        return self._evaluation_loader(self._sets["predict"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment what the host did not, normalize, and erase at random, on the device."""
        images, labels = batch
        if isinstance(images, DrawnBatch):
            images = self._augmented(images)
        images = normalize(images, self.mean, self.std)
        if self.trainer is not None and self.trainer.training and self.train_recipe.random_erasing:
            reseed(run_seed(), 1, self.trainer.current_epoch, self._next_batch(), self._ranks()[1])
            images = erasing(self.train_recipe, images.device)(images)
        if self.trainer is not None:  # the model may be in bfloat16 or float64
            images = images.to(self.trainer.lightning_module.dtype)
        return images, labels

    def _augmented(self, batch: DrawnBatch) -> Tensor:
        images = batch.images
        cached = self._sets["train"]
        if isinstance(cached, DeviceCache):
            images = crop_and_resize(cached.take(images), batch.boxes, self.image_size)
        return augment(images, batch.operations, fill_color(self.mean))

    def _check_settings(self) -> None:
        """Check the range of each setting, and that the files can exist."""
        in_range("data.batch_size", self.batch_size, 1, hint="The paper uses 1024 over all devices")
        in_range("data.repeats", self.repeats, 1, 1000, "DeiT uses 3, and 1 turns it off")
        if self.shots is not None:
            in_range("data.shots", self.shots, 1, hint="Set null to train on all images")
        in_range("data.image_size", min(self.image_size), 1, hint="DeiT uses 224")
        if not 0 <= self.held_out < 1:
            raise InputError(
                f"data.held_out={self.held_out}: must be in [0, 1), because it is a fraction."
            )
        if not 0 < self.train_fraction <= 1:
            raise InputError(
                f"data.train_fraction={self.train_fraction}: must be in (0, 1]. 1 trains on all "
                "images."
            )
        in_range("data.num_workers", self.num_workers, 0, 512, "0 loads in the main process")
        in_range("data.split_seed", self.split_seed, 0)
        one_of("data.bad_images", self.bad_images, ("stop", "skip"))
        for channel in self.mean:
            in_range("data.mean", channel, -LIMIT, LIMIT, "Use the means of images in [0, 1]")
        for channel in self.std:
            in_range("data.std", channel, 1 / LIMIT, LIMIT, "Use those of images in [0, 1]")
        name = type(self).__name__
        one_of("data.cache", self.cache or "host", ("host", "device"))
        one_of("data.augment_on", self.augment_on, ("host", "device"))
        if self.cache == "host" and not self.cacheable:
            raise InputError(f"data.cache=host: {name} does not support it. Set data.cache=null.")
        if self.download and not self.archives:
            raise InputError(
                f"data.download=true: {name} has no open download. Get it from its owner, unpack "
                f"it into {self.root}, and set data.download=false."
            )
        if self.reads_root and not self.download:
            existing_folder(self.root)

    def _open(self, split: Split | Literal["predict"]) -> Images:
        settings = self.train_recipe, self.image_size, self.mean
        if split != "train":
            transform = eval_transform(self.eval_recipe, self.image_size)
        elif self.cache == "device":
            transform = cached_transform(self.train_recipe, self.image_size)
        else:
            transform = train_transform(*settings, draw=self.augment_on == "device")
        if split == "predict":
            if self.predict_dir is not None:
                return ImageFiles(self.predict_dir, transform)
            return NamedImages(self._open("test"))
        part = self.part_of(split)
        images: Any = self.images(part, transform)
        check_range(images.targets, self.num_classes, str(self.root), self.has_outliers)
        if part != "train":
            return images
        kept, validation = self._training_split(images)
        if split == "val" and not validation:
            raise InputError(
                f"data.held_out={self.held_out}: holds out nothing, because every class in "
                f"{self.root} has one image. Set data.held_out=0."
            )
        chosen = Subset(images, kept if split == "train" else validation)
        if split == "train" and self.cache == "device":
            return DeviceCache(chosen, drawn_crop(*settings), self.num_workers)
        return chosen

    def _training_split(self, images: Any) -> tuple[list[int], list[int]]:
        if not self.trainable:
            raise InputError(
                f"data={type(self).__name__}: no training split. Run `smmix test` with it."
            )
        settings = self.held_out, self.train_fraction, self.shots, self.split_seed
        return training_split(images.targets, *settings)

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
            collate_fn=collate_good,
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
