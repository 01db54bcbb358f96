"""Pre-flight check of a dataset split: every image, its label, and the class names."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from smmix_pl.data.io.file_lists import collect_ignored, counted, look_alikes
from smmix_pl.data.io.images import BadImage, to_rgb
from smmix_pl.data.io.progress import with_progress
from smmix_pl.errors import InputError, one_line
from smmix_pl.metrics import OUTLIER

if TYPE_CHECKING:
    from smmix_pl.data.base import Split
    from smmix_pl.data.datamodule import ImageData

CHUNK = 4096
"""Number of images per batch of thread tasks, which bounds the results held in memory."""
ORIENTATION = 0x0112
"""EXIF tag of the camera orientation."""


class Sizes(NamedTuple):
    """Number of images in each split of a dataset."""

    train: int
    val: int
    test: int


@dataclass
class SplitReport:
    """Result of checking one split of a dataset.

    Args:
        part: `train`, `val`, or `test`.
        images: Number of images that were read.
        expected: Number of images stated by the owner of the dataset, if any.
        bad: One sentence per unusable image or label.
        notes: One sentence per image that is usable but unusual.
        per_class: Number of images of each class.
    """

    part: str
    images: int
    expected: int | None
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    per_class: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """True if nothing is bad, the number of images is right, and no class is empty."""
        return not self.faults()

    def faults(self) -> list[str]:
        """Return everything that makes the split unusable."""
        empty = [name for name, count in self.per_class.items() if not count]
        found = list(self.bad)
        if self.expected is not None and self.images != self.expected:
            found.append(f"{self.images:,} images, expected {self.expected:,}")
        if empty:
            found.append(f"{counted(len(empty), 'class')} without images, such as {empty[0]!r}")
        return found

    def require_good(self) -> None:
        """Raise an error unless the split is good.

        Raises:
            InputError: There are faults.
        """
        faults = self.faults()
        if faults:
            raise InputError(
                f"data.check=true: {counted(len(faults), 'fault')} in the {self.part} split, such "
                f"as: {faults[0]}. Fix the faults in the report above."
            )

    def __str__(self) -> str:
        verdict = "good" if self.good else f"BAD: {counted(len(self.faults()), 'fault')}"
        contents = f"{counted(self.images, 'image')} in {counted(len(self.per_class), 'class')}"
        return "\n".join(
            [
                f"{self.part}: {contents}",
                *(f"  bad: {one_line(fault)}" for fault in self.faults()),
                *(f"  note: {one_line(note)}" for note in self.notes),
                histogram(list(self.per_class.values())),
                f"{self.part}: {verdict}",
            ]
        )


def inspect(image: Image.Image) -> str:
    """Decode an image completely and return what is unusual about it. Stands in for a transform."""
    notes = []
    if image.getexif().get(ORIENTATION, 1) != 1:
        applied = "applied" if image.format == "TIFF" else "ignored"  # Pillow rotates TIFF files
        notes.append(f"EXIF rotation is {applied}")
    if image.mode not in ("RGB", "L"):
        notes.append(f"mode {image.mode} is converted to RGB")
    to_rgb(image).load()
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as error:  # Pillow counts frames by reading them, and raises what it likes
        notes.append(f"only the first frame is used; others are damaged ({one_line(error)})")
    else:
        if frames > 1:
            notes.append(f"only the first of {frames} frames is used")
    return "; ".join(notes)


def examine_splits(data: "ImageData", splits: Iterable["Split"]) -> Iterator[SplitReport]:
    """Read every image of some splits, and yield one report per split of the dataset.

    If a split cannot be opened, its report has the reason. This is a fault, except for a missing
    test split if validation images are held out of the training set. Splits with the same images as
    an earlier one are skipped.
    """
    seen: list[Any] = []
    for part in dict.fromkeys(map(data.part_of, splits)):
        notes: list[str] = []
        try:
            with collect_ignored(notes):
                images = data.images(part, inspect)
        except InputError as error:
            optional = part == "test" and data.held_out > 0
            bad, notes = ([], [str(error)]) if optional else ([str(error)], [])
            yield SplitReport(part, 0, None, bad, notes)
            continue
        if origin(images) not in seen:
            seen.append(origin(images))
            report = examine(images, data.evaluated_classes, part, data.sizes, data.has_outliers)
            report.notes[:0] = notes
            yield report


def examine(
    images: Any,
    names: Mapping[int, str],
    part: str,
    sizes: Sizes | None,
    has_outliers: bool = False,
) -> SplitReport:
    """Read every image of a split that was opened with `inspect` as its transform.

    Args:
        images: The split.
        names: Names of the classes that must have images, by class index.
        part: `train`, `val`, or `test`.
        sizes: Number of images in each split, as stated by the owner of the dataset.
        has_outliers: Allow the label -1, which means none of the classes.
    """
    report = SplitReport(part, len(images), getattr(sizes, part, None))
    counts = Counter(np.asarray(images.targets, dtype=np.int64).tolist())
    report.per_class = {name: counts[number] for number, name in names.items()}
    unknown = sorted(set(counts) - set(names) - ({OUTLIER} if has_outliers else set()))
    report.bad += [
        f"{counted(counts[number], 'image')} with the unknown class index {number}"
        for number in unknown
    ]
    sources = [source for source, _ in getattr(images, "samples", [])]
    # Pillow releases the interpreter lock while it decodes
    with ThreadPoolExecutor(getattr(images, "threads", None)) as pool:
        examined = (
            result
            for start in range(0, len(images), CHUNK)
            for result in pool.map(
                _examine_one, repeat(images), range(len(images))[start : start + CHUNK]
            )
        )
        results = with_progress(examined, len(images), f"Reading the {part} split")
        for index, (bad, note) in enumerate(results):
            if bad:
                report.bad.append(bad)
            elif note:
                report.notes.append(f"{sources[index] if sources else f'#{index}'}: {note}")
    return report


def origin(images: Any) -> Any:
    """Return where the images of a split come from, equal for two splits with the same images.

    For arrays in memory it is the object itself: they are read twice, which is fast.
    """
    return getattr(images, "samples", getattr(images, "origin", images))


def check_names(class_names: Sequence[str], place: str) -> None:
    """Check that class names are distinct text.

    Args:
        class_names: Names in the order of class indices.
        place: Location of the dataset.

    Raises:
        InputError: There are fewer than two, two are the same or look the same, or one is not text.
    """
    if not class_names:
        raise InputError(f"data.root={place}: no classes found. Unpack the complete archive again.")
    name, count = Counter(class_names).most_common(1)[0]
    if count > 1:
        raise InputError(f"data.root={place}: {count} classes named {name!r}. Rename all but one.")
    if len(class_names) < 2:
        raise InputError(f"data.root={place}: only 1 class, {name!r}. Add a second one.")
    for name in class_names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"data.root={place}: class name {name!r} is not valid UTF-8. Rename it."
            ) from error
    twins = look_alikes(class_names)
    if twins:
        raise InputError(
            f"data.root={place}: class names {twins[0]!r} ({twins[0]!a}) and {twins[1]!r} "
            f"({twins[1]!a}) look the same but differ in Unicode form (NFC, NFD). Rename or "
            "merge them."
        )


def check_range(labels: Sequence[int], classes: int, place: str, has_outliers: bool) -> None:
    """Check that every label is the index of a class.

    Args:
        labels: Class indices.
        classes: Number of classes.
        place: Location of the dataset.
        has_outliers: Allow the label -1, which means none of the classes.

    Raises:
        InputError: A label is out of range, or there are no labels.
    """
    if not len(labels):
        raise InputError(
            f"data.root={place}: no images in this split. Unpack the complete archive again."
        )
    low, high = int(np.min(labels)), int(np.max(labels))
    lowest = OUTLIER if has_outliers else 0
    if low < lowest or high >= classes:
        wrong = low if low < lowest else high
        raise InputError(
            f"data.root={place}: label {wrong} is out of range for {classes} classes. Fix the "
            "list of labels."
        )


def histogram(counts: Sequence[int]) -> str:
    """Return lines of text with the number of classes in up to eight ranges of images."""
    if not counts:
        return "  no classes"
    lowest, highest = min(counts), max(counts)
    step = -(-(highest - lowest + 1) // 8)
    lows = range(lowest, highest + 1, step)
    classes = [sum(low <= count < low + step for count in counts) for low in lows]
    return "\n".join(
        f"  {low:7d} to {min(low + step - 1, highest):7d} images: {n:5d} classes "
        f"{'#' * round(40 * n / max(classes))}"
        for n, low in zip(classes, lows, strict=True)
    )


def _examine_one(images: Any, index: int) -> tuple[str, str]:
    """Return an error and a note about one image, each empty if there is none."""
    try:
        return "", images[index][0]
    except BadImage as error:
        return str(error), ""
