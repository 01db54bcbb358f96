"""The LightningDataModule that every data set shares: its loaders, and what a model must know."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch import Trainer
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import Dataset, Subset

from smmix_pl.checks import in_range, one_of
from smmix_pl.data.io.download import Archive, fetch
from smmix_pl.data.io.images import reading_lists
from smmix_pl.data.loaders import LoaderModule
from smmix_pl.data.splits import training_split
from smmix_pl.data.transforms import (
    EvalTransform,
    TrainTransform,
    Transform,
    eval_transform,
    train_transform,
)
from smmix_pl.data.unlabeled import ImageFiles, NamedImages
from smmix_pl.data.validation import (
    Sizes,
    SplitReport,
    check_names,
    check_range,
    counted,
    examine,
    inspect,
    origin,
)
from smmix_pl.errors import InputError

Split = Literal["train", "val", "test"]
LARGEST = 1e6
"""Channel means and deviations beyond are a slip, and overflow when images are divided by them."""
Images = Dataset[Any]
"""A map-style data set of (image, class number); ``targets`` holds the class numbers alone."""


OPENED: dict[str, tuple[Any, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}
"""What each stage needs, in plain words: Lightning's stages print as ``TrainerFn.TESTING``."""


class ImageData(LoaderModule, ABC):
    """Images and class numbers of one data set, for training, validation, test and prediction.

    A subclass says where its images are (`images`) and what its classes are called
    (`find_classes`). Model settings that follow from the data (classes, image size, mean and std,
    batch size) are read from here by the command line, so nobody says them twice.

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
        train_fraction: Share of every class to train on, of what is not held out, in (0, 1].
        shots: Or else, this many training images of every class.
        split_seed: Chooses what is held out and what is trained on.
        predict_dir: Folder of images for ``predict``, searched recursively; null predicts the test
            part.
        download: Fetch the data set into root if it is not there and its owner offers it openly.
        bad_images: What an image that cannot be read does: ``stop`` the run with its name, or
            ``skip``, counted and told at the end of the epoch.
        cache: Keep decoded images in memory; for sets of files that fit there. Sets that come as
            arrays lie there anyway; streamed ones refuse.
        check: Read every image of what the command needs before it starts.
    """

    own_mean: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_MEAN
    own_std: ClassVar[tuple[float, float, float]] = IMAGENET_DEFAULT_STD
    archives: ClassVar[tuple[Archive, ...]] = ()
    sizes: Sizes | None = None
    """Images in each part, as its owner counts them; the check compares."""
    class_subset: list[int] | None = None
    """The classes that evaluation is restricted to, where it is (ImageNet-A, -R, -O)."""
    has_outliers: ClassVar[bool] = False
    """Some images are of no class, and numbered -1."""
    cacheable: ClassVar[bool] = True
    """Decoded images may be kept in memory."""
    trainable: ClassVar[bool] = True
    """There is a training part; other sets are for testing alone."""

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
        cache: bool = False,
        check: bool = False,
    ) -> None:
        super().__init__()
        _at_least_one("batch_size", batch_size, "the paper's recipe takes 1024 over all devices")
        in_range("data.repeats", repeats, 1, 1000, "DeiT takes 3, and 1 turns them off")
        _at_least_one("shots", 1 if shots is None else shots, "null trains on all images")
        for name, value in (("image_size", image_size), ("root", root)):
            if value is None:
                raise InputError(f"data.{name} is null; it must be set")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        _at_least_one("image_size", min(height, width), "DeiT takes 224")
        if not 0 <= held_out < 1:
            raise InputError(f"data.held_out is {held_out}; a share of train is in [0, 1)")
        if not 0 < train_fraction <= 1:
            raise InputError(f"data.train_fraction is {train_fraction}; it must be in (0, 1]")
        in_range("data.num_workers", num_workers or 0, 0, 512, "0 loads in the run's own process")
        in_range("data.split_seed", split_seed, 0)
        if cache and not self.cacheable:
            raise InputError(
                f"data.cache is true, but {type(self).__name__} reads images as they are stored; "
                "set it to false"
            )
        one_of("data.bad_images", bad_images, ("stop", "skip"))
        for channel in mean or ():
            in_range("data.mean", channel, -LARGEST, LARGEST, "those of images in [0, 1]")
        for channel in std or ():
            in_range(
                "data.std", channel, 1 / LARGEST, LARGEST, "the deviations of images in [0, 1]"
            )
        self.root = Path(root).expanduser()
        self.image_size = (height, width)
        self.batch_size = batch_size
        self.num_workers = _cores() if num_workers is None else num_workers
        self.mean, self.std = mean or self.own_mean, std or self.own_std
        self.train_recipe, self.eval_recipe = train_transform, eval_transform
        self.repeats = repeats
        self.held_out, self.train_fraction, self.shots = held_out, train_fraction, shots
        self.split_seed = split_seed
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
        self.bad_images = bad_images
        self.cache = cache
        self.check = check
        if download:
            fetch(self.archives, self.root, type(self).__name__)
        with reading_lists(self.root):
            self.class_names: list[str] = self.find_classes()
        self.num_classes = len(self.class_names)
        check_names(self.class_names, str(self.root))
        if self.num_classes < 2:
            raise InputError(f"{self.root} has {self.num_classes} class; there must be 2 or more")
        self._sets = {}

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
        splits = OPENED.get(stage, (stage,))
        if "train" in map(self.part_of, splits) and not self.trainable:
            name = type(self).__name__
            raise InputError(f"{name} has no training part; run `lightning test` with it")
        for split in splits:
            self._sets[split] = self._open(split)
            self._check_count(split, len(self._sets[split]))  # type: ignore[arg-type]
        if self.check and stage != "predict":
            for report in self.reports(splits):
                if self._ranks()[1] == 0:
                    print(report)
                report.require_good()

    def part_of(self, split: Split) -> Split:
        """The part of the data set that images are taken from."""
        return "train" if split == "val" and self.held_out else split

    def reports(self, splits: Iterable[Split]) -> Iterator[SplitReport]:
        """Read every image of some splits; one report on each part that they are taken from.

        One on a part that cannot be opened says why; where validation images are held out of train,
        it may be all that there is. A part of the same images as an earlier one has none.
        """
        seen: list[Any] = []
        for part in dict.fromkeys(map(self.part_of, splits)):
            try:
                images = self.images(part, inspect)
            except InputError as error:
                spared = part == "test" and self.held_out > 0
                bad, notes = ([], [str(error)]) if spared else ([str(error)], [])
                yield SplitReport(part, 0, None, bad, notes)
                continue
            if origin(images) not in seen:
                seen.append(origin(images))
                names, outliers = self.classes_in_question, self.has_outliers
                yield examine(images, names, part, self.sizes, outliers)

    @property
    def classes_in_question(self) -> dict[int, str]:
        """Names of the classes that the set has images of, by their numbers."""
        numbers = range(self.num_classes) if self.class_subset is None else self.class_subset
        return {number: self.class_names[number] for number in numbers}

    @property
    def counts(self) -> dict[str, int]:
        """Images in each part that is open, by its name; streams do not know theirs."""
        return {
            part: len(images) for part, images in self._sets.items() if hasattr(images, "__len__")
        }

    def _open(self, split: Split | Literal["predict"]) -> Images:
        if split == "train":
            transform = train_transform(self.train_recipe, self.image_size, self.mean)
        else:
            transform = eval_transform(self.eval_recipe, self.image_size)
        if split == "predict":
            if self.predict_dir is not None:
                return ImageFiles(self.predict_dir, transform)
            return NamedImages(self._open("test"))
        part = self.part_of(split)
        images: Any = self.images(part, transform)
        check_range(images.targets, self.num_classes, str(self.root), self.has_outliers)
        if part != "train":
            return images
        kept, held = training_split(
            images.targets, self.held_out, self.train_fraction, self.shots, self.split_seed
        )
        if split == "val" and not held:
            raise InputError(
                f"data.held_out {self.held_out} holds out nothing of {self.root}, whose classes "
                "have one image each; set it to 0"
            )
        return Subset(images, kept if split == "train" else held)

    def _check_count(self, split: str, images: int) -> None:
        ranks = self._ranks()[0]
        if split == "train" and images < self.batch_size * ranks:
            raise InputError(
                f"one step takes {self.batch_size} images on each of {ranks} devices, but the "
                f"training set in {self.root} has {images}; lower data.batch_size"
            )
        if images < ranks:
            place = self.predict_dir if split == "predict" and self.predict_dir else self.root
            raise InputError(
                f"{place} has {counted(images, f'{split} image')}, fewer than the {ranks} devices; "
                "take fewer devices"
            )


def _at_least_one(name: str, value: int, hint: str) -> None:
    if value is None or value < 1:  # null passes the command line's own check
        raise InputError(f"data.{name} is {value}; it must be at least 1 ({hint})")


def _cores() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def image_data(trainer: Trainer) -> ImageData:
    """Return the datamodule of a trainer that runs with one of this package."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageData), "SMMix callbacks need an ImageData datamodule"
    return data
