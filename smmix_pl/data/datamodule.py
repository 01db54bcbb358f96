"""The LightningDataModule that all datasets share."""

from abc import abstractmethod
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from smmix_pl.checks import in_range, one_of
from smmix_pl.data.base import SPLITS_OF_STAGE, BaseData, Images, Split
from smmix_pl.data.device_augment import augment
from smmix_pl.data.device_cache import DeviceCache
from smmix_pl.data.device_crop import crop_and_resize
from smmix_pl.data.drawn_operations import DrawnBatch
from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.io.images import reading_lists
from smmix_pl.data.loaders import ImageLoader, collate_good
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


class ImageData(BaseData):
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
        balanced: Draw training images with replacement, so that every class is equally frequent.
    """

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
        balanced: bool = False,
    ) -> None:
        super().__init__(root, image_size, batch_size, num_workers, mean, std, download, bad_images)
        self.train_recipe, self.eval_recipe = train_transform, eval_transform
        self.repeats = repeats
        self.held_out, self.train_fraction, self.shots = held_out, train_fraction, shots
        self.split_seed = split_seed
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
        self.cache = cache
        self.augment_on = "device" if cache == "device" else augment_on
        self.check = check
        self.balanced = balanced
        self.train_places: list[int] = []
        """Place of each training image in the training split. Set by `setup`."""
        self.train_classes: list[int] = []
        """Class index of each training image. Set by `setup`."""
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

    def label_counts(self) -> Tensor:
        """Return the number of training images of each class, `(K,)` int64, after `setup`."""
        return torch.from_numpy(np.bincount(self.train_classes, minlength=self.num_classes))

    def plain_train_dataloader(self) -> ImageLoader:
        """Return training images prepared for evaluation, each exactly once over all ranks."""
        images = self.images("train", eval_transform(self.eval_recipe, self.image_size))
        return self._evaluation_loader(Subset(images, self._training_split(images)[0]))

    def calibration_dataloader(self) -> ImageLoader | None:
        """Return the validation images, each exactly once over all ranks.

        None if they are those of the test, on which nothing may be calibrated.
        """
        if not self.trainable:
            return None
        images = self._open("val")
        if self.part_of("val") != "train" and _listed(images) == _listed(self._open("test")):
            return None
        return self._evaluation_loader(images)

    def predict_dataloader(self) -> Any:
        """Return images and file names, each exactly once over all ranks."""
        return self._evaluation_loader(self._sets["predict"])

    def collate(self, items: list[Any]) -> tuple[Any, dict[int, str]]:
        """Return a batch of images and class indices, and the errors of bad ones by place."""
        return collate_good(items)

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
        in_range("data.repeats", self.repeats, 1, 1000, "DeiT uses 3, and 1 turns it off")
        if self.shots is not None:
            in_range("data.shots", self.shots, 1, hint="Set null to train on all images")
        if not 0 <= self.held_out < 1:
            raise InputError(
                f"data.held_out={self.held_out}: must be in [0, 1), because it is a fraction."
            )
        if not 0 < self.train_fraction <= 1:
            raise InputError(
                f"data.train_fraction={self.train_fraction}: must be in (0, 1]. 1 trains on all "
                "images."
            )
        in_range("data.split_seed", self.split_seed, 0)
        name = type(self).__name__
        one_of("data.cache", self.cache or "host", ("host", "device"))
        one_of("data.augment_on", self.augment_on, ("host", "device"))
        if self.cache == "host" and not self.cacheable:
            raise InputError(f"data.cache=host: {name} does not support it. Set data.cache=null.")

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
        if split == "train":
            self.train_places = kept
            self.train_classes = [int(images.targets[place]) for place in kept]
            if self.balanced:
                counts = Counter(self.train_classes)
                self.sampling_weights = [1 / counts[label] for label in self.train_classes]
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


def _listed(images: Any) -> list[Any]:
    """Return the files and classes of images or, if they are not files, their classes."""
    return list(getattr(images, "samples", images.targets))
