"""The DataLoader of all datasets: skips or reports bad images, and starts anywhere in an epoch."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from smmix_pl.data.drawn_operations import Drawn, drawn_batch
from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.io.images import BadImage
from smmix_pl.data.samplers import Draw, TrainingSampler
from smmix_pl.errors import InputError
from smmix_pl.seeding import reseed


class CatchBadImages(Dataset[Any]):
    """Map-style dataset that returns a `BadImage` where the wrapped dataset raises it.

    The loader then handles it in the main process, without the traceback of a worker. Random
    streams are reseeded at each image of a `TrainingSampler`, so augmentation depends neither on
    the worker nor on earlier images.

    Args:
        images: Dataset to wrap.
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
            error.place = int(index)
            return error


def collate_good(items: list[Any]) -> tuple[Any, dict[int, str]]:
    """Return a batch of the good items, or None without any, and the others' errors by place.

    A batch of `Drawn` images is a `DrawnBatch`.
    """
    bad = {item.place: str(item) for item in items if isinstance(item, BadImage)}
    good = [item for item in items if not isinstance(item, BadImage)]
    if not good:
        return None, bad
    labels: Any
    images, labels = zip(*good, strict=True)
    if isinstance(images[0], Drawn):
        collated: Any = drawn_batch(_stacked([item.image for item in images]), images)
    else:
        collated = _stacked(images)
    return (collated, default_collate(labels)), bad


def collate_lists(items: list[Any]) -> tuple[Any, dict[int, str]]:
    """Return lists of the parts of the good items, or None, and the others' errors by place.

    For images of differing sizes.
    """
    bad = {item.place: str(item) for item in items if isinstance(item, BadImage)}
    good = [item for item in items if not isinstance(item, BadImage)]
    return (tuple(map(list, zip(*good, strict=True))) if good else None), bad


def _stacked(images: Sequence[Any]) -> Tensor:
    """Stack images, or indices of cached ones.

    Pixels of Pillow images have the channels last in memory, and keep this layout until they are
    on the device.
    """
    if isinstance(images[0], int):
        return torch.tensor(images)
    return default_collate([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


class ImageLoader(DataLoader[Any]):
    """Batches of (images, classes) or (images, names), with uint8 images `(B, 3, H, W)`.

    Lightning recreates loaders for prediction from the attributes named like these arguments.

    Args:
        dataset: Images wrapped in `CatchBadImages`.
        skip_bad: Skip bad images and list them in a warning at the end of the epoch. By default,
            the first one raises an error.
        first_batch: Called at the start of an epoch; returns the number of batches to skip.
        **options: Other arguments of the DataLoader; `collate_fn` is `collate_good`.

    Raises:
        InputError: While iterating, if an image is bad or, with `skip_bad`, all of a batch.
    """

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
        self._bad_places: set[int] = set()

    def good_places(self) -> Iterator[int]:
        """Yield the index in the dataset of each image of the current epoch, in their order.

        Take no more than there were images so far, because later ones may be bad.
        """
        return (place for place in self.sampler if place not in self._bad_places)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield batches of good images."""
        skipped: list[str] = []
        self._bad_places = set()
        left = len(self)
        if isinstance(self.sampler, TrainingSampler):
            batches = self.first_batch() if self.first_batch else 0
            self.sampler.first = batches * (self.batch_size or 1)
            left -= batches
        try:
            for batch, errors in super().__iter__():
                left -= 1
                bad = [*errors.values()]
                self._bad_places.update(errors)
                if bad and not self.skip_bad:
                    raise BadImage(f"{bad[0]}. Fix or remove it, or set data.bad_images=skip.")
                skipped += bad
                if batch is None and self.drop_last:  # other ranks train on theirs
                    raise InputError(
                        f"data.bad_images=skip: all images of a batch are bad, such as: {bad[0]}. "
                        "Fix or remove them."
                    )
                if not left:  # Lightning does not exhaust the iterator, so this is the last chance
                    _warn_skipped(skipped)
                    skipped = []
                if batch is not None:
                    yield batch
        finally:
            _warn_skipped(skipped)

    def state_dict(self) -> dict[str, Any]:
        """Return no state: where to resume follows from Lightning's progress counters."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load no state. Lightning warns about loaders without these two methods."""


def _warn_skipped(skipped: list[str]) -> None:
    """Warn in every epoch; `warnings.warn` would repeat the same text only once."""
    if not skipped:
        return
    lines = [f"{counted(len(skipped), 'bad image')} skipped in this epoch:"]
    lines += sorted(skipped)[:20]
    if len(skipped) > 20:
        lines.append(f"and {len(skipped) - 20} more")
    warnings.warn_explicit("\n  ".join(lines), UserWarning, __file__, 0, __name__)
