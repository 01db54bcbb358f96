"""What a pre-flight check looks at: every image of a part, its labels, the names of the classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.io.images import BadImage, to_rgb
from smmix_pl.errors import InputError, one_line
from smmix_pl.metrics import OUTLIER

CHUNK = 4096
"""Images that threads are given at once: what they find is kept until it is asked for."""
ORIENTATION = 0x0112
"""EXIF's number for how a camera was held."""


class Sizes(NamedTuple):
    """How many images the parts of a data set have."""

    train: int
    val: int
    test: int


@dataclass
class SplitReport:
    """What a check found in one part of a data set.

    Args:
        part: ``train``, ``val`` or ``test``.
        images: How many were read.
        expected: How many there should be, where the owner says so.
        bad: A sentence about each image that cannot be used.
        notes: A sentence about each that can, but not as one may think.
        per_class: Images of each class.
    """

    part: str
    images: int
    expected: int | None
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    per_class: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Nothing is bad, missing or left over, and no class is empty."""
        return not self.faults()

    def faults(self) -> list[str]:
        """What the verdict rests on."""
        empty = [name for name, count in self.per_class.items() if not count]
        found = list(self.bad)
        if self.expected is not None and self.images != self.expected:
            found.append(f"{self.images:,} images where its owner counts {self.expected:,}")
        if empty:
            classes = counted(len(empty), "class")
            found.append(f"{classes} without an image, {empty[0]!r} among them")
        return found

    def require_good(self) -> None:
        """Refuse a part of which a run would not learn what one thinks.

        Raises:
            InputError: The verdict is bad.
        """
        faults = self.faults()
        if faults:
            told = counted(len(faults), "fault")
            raise InputError(f"the {self.part} part has {told}: {faults[0]}; see the report")

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
    """Decode an image wholly and say what is odd about it; takes a transform's place."""
    odd = []
    if getattr(image, "n_frames", 1) > 1:
        odd.append(f"animated, the first of {image.n_frames} frames is used")  # type: ignore[attr-defined]
    if image.getexif().get(ORIENTATION, 1) != 1:
        odd.append("rotated by EXIF, used as stored")
    if image.mode not in ("RGB", "L"):
        odd.append(f"of mode {image.mode}, converted to RGB")
    to_rgb(image).load()
    return "; ".join(odd)


def examine(
    images: Any, names: Mapping[int, str], part: str, sizes: Sizes | None, outliers: bool = False
) -> SplitReport:
    """Read every image of a part that was opened with `inspect` as its transform.

    Args:
        images: The part.
        names: Of the classes that it has to have images of, by their numbers.
        part: ``train``, ``val`` or ``test``.
        sizes: Images in each part, as its owner counts them.
        outliers: Whether -1 is allowed, which stands for none of the classes.
    """
    report = SplitReport(part, len(images), getattr(sizes, part, None))
    counts = Counter(np.asarray(images.targets, dtype=np.int64).tolist())
    report.per_class = {name: counts[number] for number, name in names.items()}
    strange = sorted(set(counts) - set(names) - ({OUTLIER} if outliers else set()))
    report.bad += [
        f"{counted(counts[number], 'image')} of class number {number}, which there is not"
        for number in strange
    ]
    sources = [source for source, _ in getattr(images, "samples", [])]
    files = [source for source in sources if isinstance(source, str)]  # not in a tar file
    report.notes += _not_listed({Path(file).parent for file in files})
    # Pillow lets go of the interpreter while it decodes
    with ThreadPoolExecutor(getattr(images, "threads", None)) as pool:
        for start in range(0, len(images), CHUNK):
            chunk = range(len(images))[start : start + CHUNK]
            found = pool.map(_examine_one, repeat(images), chunk)
            for index, (bad, odd) in zip(chunk, found, strict=True):
                if bad:
                    report.bad.append(bad)
                elif odd:
                    report.notes.append(f"{sources[index] if sources else f'#{index}'}: {odd}")
    return report


def origin(images: Any) -> Any:
    """What a part's images come from; equal for two parts that are the same images.

    Arrays in memory tell nothing of it, but are soon read twice.
    """
    return getattr(images, "samples", getattr(images, "origin", images))


def _not_listed(folders: set[Path]) -> list[str]:
    """A note where folders of images hold files that are none by their names."""
    others = [
        path
        for folder in sorted(folders)
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() not in IMG_EXTENSIONS
    ]
    if not others:
        return []
    known = " ".join(IMG_EXTENSIONS)
    told = counted(len(others), "file")
    return [f"{told} left out, {others[0]} among them; names must end on {known}"]


def check_names(class_names: Sequence[str], place: str) -> None:
    """Refuse two classes of one name, which nobody could tell apart, and names that are no text.

    Raises:
        InputError: There are such, or no class at all.
    """
    if not class_names:
        raise InputError(f"{place} names no class; unpack its archive again, in full")
    name, count = Counter(class_names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{place} has {count} classes called {name!r}; rename all but one")
    for name in class_names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{place} has a class {name!r}, which is not UTF-8; rename it"
            ) from error


def check_range(labels: Sequence[int], classes: int, place: str, outliers: bool) -> None:
    """Refuse class numbers that the model has no output for.

    Args:
        labels: Class numbers.
        classes: How many classes there are.
        place: Where the data set is.
        outliers: Whether -1 is allowed, which stands for none of the classes.

    Raises:
        InputError: There are such, or no labels at all.
    """
    if not len(labels):
        raise InputError(f"{place} holds no image of this part; unpack its archive again")
    low, high = int(np.min(labels)), int(np.max(labels))
    lowest = OUTLIER if outliers else 0
    if low < lowest or high >= classes:
        wrong = low if low < lowest else high
        raise InputError(
            f"{place} has a label {wrong}, outside the {classes} classes; mend its list"
        )


def counted(number: int, thing: str) -> str:
    """A number of things: 1 fault, 2 classes, 1,000 images."""
    plural = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{plural}"


def histogram(counts: Sequence[int], bars: int = 8) -> str:
    """How many classes have how many images, as lines of text."""
    if not counts:
        return "  no classes"
    lowest, highest = min(counts), max(counts)
    step = -(-(highest - lowest + 1) // bars)
    lows = range(lowest, highest + 1, step)
    classes = [sum(low <= count < low + step for count in counts) for low in lows]
    return "\n".join(
        f"  {low:7d} to {min(low + step - 1, highest):7d} images: {n:5d} classes "
        f"{'#' * round(40 * n / max(classes))}"
        for n, low in zip(classes, lows, strict=True)
    )


def _examine_one(images: Any, index: int) -> tuple[str, str]:
    """What is bad, and what is odd about one image."""
    try:
        return "", images[index][0]
    except BadImage as error:
        return str(error), ""
