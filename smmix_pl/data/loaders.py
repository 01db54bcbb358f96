"""What a LightningDataModule of images hands to the trainer: its loaders, and the last touch."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from smmix_pl.data.io.images import BadImage
from smmix_pl.data.samplers import Draw, EvaluationSampler, TrainingSampler
from smmix_pl.data.transforms import TrainTransform, erasing, normalize
from smmix_pl.data.validation import counted
from smmix_pl.errors import InputError
from smmix_pl.seeding import reseed, run_seed

Images = Dataset[Any]
"""A map-style data set of (image, class number); ``targets`` holds the class numbers alone."""


class Guarded(Dataset[Any]):
    """A map-style data set that gives a `BadImage` where its own would raise it.

    So the loader decides what to do about it, in the main process, where its sentence can be told
    without the traceback of a worker. Augmentation draws from streams that begin anew at each
    image of a `TrainingSampler`: it depends on no worker, and on nothing drawn before.
    """

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Draw):
            reseed(index.seed)
        try:
            return self.images[int(index)]
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
        first_batch: Asked at the beginning of an epoch; that many batches are left out unread.
        **options: Further arguments of the DataLoader; ``collate_fn`` is `collate_good`.

    Raises:
        InputError: While iterating: an image is bad; with ``skip_bad``, a whole batch is.
    """

    # Lightning makes loaders again for prediction, from the attributes that these arguments name.
    def __init__(
        self,
        dataset: Dataset[Any],
        skip_bad: bool = False,
        first_batch: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        self.skip_bad = skip_bad
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of good images."""
        skipped: list[str] = []
        left = len(self)
        if isinstance(self.sampler, TrainingSampler):
            batches = self.first_batch() if self.first_batch else 0
            self.sampler.first = batches * (self.batch_size or 1)
            left -= batches
        try:
            for batch, bad in super().__iter__():
                left -= 1
                if bad and not self.skip_bad:
                    raise BadImage(f"{bad[0]}; mend or remove it, or set data.bad_images to skip")
                skipped += bad
                if batch is None and self.drop_last:  # the other ranks train on theirs
                    raise InputError(f"no image of a whole batch can be read; the first: {bad[0]}")
                if not left:  # Lightning asks for no more than it counts, so nothing comes after
                    _tell(skipped)
                    skipped = []
                if batch is not None:
                    yield batch
        finally:
            _tell(skipped)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: where to go on follows from the trainer's progress, which Lightning keeps."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is needed; but without these two, Lightning warns of what is not the case."""


def _tell(skipped: list[str]) -> None:
    """A warning that is not left out in later epochs, whose bad images are the same."""
    if skipped:
        warnings.warn_explicit(_told(skipped), UserWarning, __file__, 0, __name__)


def _told(skipped: list[str], shown: int = 20) -> str:
    lines = sorted(skipped)[:shown]
    rest = [f"and {len(skipped) - shown} more"] if len(skipped) > shown else []
    told = counted(len(skipped), "bad image")
    return "\n  ".join([f"{told} skipped in this epoch:", *lines, *rest])


class LoaderModule(LightningDataModule):
    """LoaderModule of uint8 images, which are normalized on the device.

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
        sampler = TrainingSampler(dataset, ranks, rank, run_seed(), self.repeats)
        return self._loader(dataset, sampler, drop_last=True, first_batch=self._next_batch)

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
        images = normalize(images, self.mean, self.std)
        if self.trainer is not None and self.trainer.training and self.train_recipe.random_erasing:
            reseed(run_seed(), 1, self.trainer.current_epoch, self._next_batch(), self._ranks()[1])
            images = erasing(self.train_recipe, images.device)(images)
        if self.trainer is not None:  # a model in bfloat16 or float64 takes its own
            images = images.to(self.trainer.lightning_module.dtype)
        return images, labels

    def _next_batch(self) -> int:
        """The batch that the trainer is about to train on; not 0 where it goes on in mid-epoch."""
        # An epoch's iterator runs from its first batch on, after Lightning has restored progress.
        if self.trainer is None or not self.trainer.training:
            return 0
        return self.trainer.fit_loop.batch_idx + 1

    def _loader(
        self,
        dataset: Images,
        sampler: Sampler[int],
        drop_last: bool = False,
        first_batch: Callable[[], int] | None = None,
    ) -> ImageLoader:
        return ImageLoader(
            Guarded(dataset),
            skip_bad=self.bad_images == "skip",
            first_batch=first_batch,
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
