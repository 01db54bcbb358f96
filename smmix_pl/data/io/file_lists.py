"""Labeled image files: folders of class folders, and the lists that come with datasets."""

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from lightning.pytorch.utilities import rank_zero_warn
from scipy.io import loadmat
from torchvision.datasets import VisionDataset

from smmix_pl.data.io.images import SUFFIXES, Source, existing_folder, is_image_name
from smmix_pl.errors import InputError

Samples = list[tuple[Source, int]]
"""Source and class index of each image."""


class IgnoredFiles(UserWarning):
    """Warning about files that are not read because of their suffix."""


def is_hidden(path: str) -> bool:
    """Return True if a file or a folder in a relative path is hidden: its name starts with a dot.

    Hidden folders hold copies, such as `.ipynb_checkpoints`, and hidden files hold metadata.
    """
    parts = PurePosixPath(path).parts
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the image files below a folder, sorted by folder and name, and all other files.

    Every reader of folders uses this one rule. Hidden files and folders are skipped. Links to
    folders are followed, but each folder is read once, so that a link to an enclosing folder or a
    second link to the same one adds nothing.

    Raises:
        OSError: A folder cannot be listed.
    """
    found: list[tuple[str, str]] = []
    visited = {_identity(parent) for parent in folder.resolve().parents}
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if _identity(place) in visited:
            folders.clear()
            continue
        visited.add(_identity(place))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [(place, name) for name in names if not is_hidden(name)]
    found.sort()
    images = [os.path.join(*one) for one in found if is_image_name(one[1])]
    return images, [os.path.join(*one) for one in found if not is_image_name(one[1])]


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def warn_ignored(place: str, ignored: Sequence[str]) -> None:
    """Warn about files that are not read because of their suffix, counted by suffix."""
    if not ignored:
        return
    suffixes = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in ignored)
    counts = ", ".join(f"{suffix}: {count:,}" for suffix, count in sorted(suffixes.items()))
    rank_zero_warn(
        f"{place}: {counted(len(ignored), 'file')} ignored ({counts}), such as {ignored[0]}. "
        f"Supported suffixes: {' '.join(SUFFIXES)}",
        category=IgnoredFiles,
    )


def _raise(error: OSError) -> NoReturn:
    raise error


@contextmanager
def collect_ignored(notes: list[str]) -> Iterator[None]:
    """Append warnings about ignored files to a list instead of showing them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        if one.category is IgnoredFiles:
            notes.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in a folder, sorted in the order of class indices.

    Raises:
        InputError: The folder is missing or has no class folder.
    """
    names = subfolders(folder)
    if not names:
        raise InputError(
            f"{folder}: no class folders found. Expected one subfolder of images per class."
        )
    return names


def subfolders(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, sorted.

    Raises:
        InputError: The folder is missing or holds a broken link.
    """
    existing_folder(folder)
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path}: broken link. Fix or remove it.")
    found = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in found if not is_hidden(name))


def folder_samples(folder: Path, expected: Sequence[str], within: str = "") -> Samples:
    """Return the images in class folders, with the position of the folder name as the class index.

    Args:
        folder: Folder with class folders.
        expected: Names of the class folders, in the order of class indices.
        within: Subfolder of each class folder that holds the images.

    Raises:
        InputError: The folder is missing, its classes differ from `expected`, or one is empty.
    """
    found = class_folders(folder)
    check_same_names(str(folder), found, expected)
    by_class: dict[str, list[str]] = {}
    ignored: list[str] = []
    for name in found:
        by_class[name], others = image_files(folder / name / within)
        ignored += others
    warn_ignored(str(folder), ignored)
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise InputError(
            f"{folder}: class folders without images: {', '.join(empty[:5])}. Remove them or add "
            "images."
        )
    numbers = {name: number for number, name in enumerate(expected)}
    return [(file, numbers[name]) for name, files in by_class.items() for file in files]


def check_same_names(place: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """Check that two sets of class names are equal.

    Raises:
        InputError: They differ.
    """
    odd = sorted(set(found) ^ set(expected))
    if not odd:
        return
    message = f"{place}: {counted(len(found), 'class')}, expected {len(expected)}. "
    twins = look_alikes(odd)
    if twins:
        raise InputError(
            f"{message}The names {twins[0]!r} ({twins[0]!a}) and {twins[1]!r} "
            f"({twins[1]!a}) look the same but differ in Unicode form (NFC, NFD). Rename one."
        )
    missing = [f"{name!r} is missing" for name in odd if name in set(expected)][:1]
    extra = [f"{name!r} is not expected" for name in odd if name not in set(expected)][:1]
    raise InputError(
        f"{message}{' and '.join(missing + extra)}. Use the same classes in all splits."
    )


def look_alikes(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that differ only in Unicode form (NFC, NFD), if any."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            return other, name
    return None


def dataset_folder(
    root: Path, name: str, flat: str | None = None, alternative: str | None = None
) -> Path:
    """Return the folder of a dataset: a subfolder of root, or root itself.

    Args:
        root: Folder in which archives were unpacked.
        name: Name of the subfolder.
        flat: Subfolder that identifies root itself, for archives without an enclosing folder.
        alternative: Another accepted layout, as a phrase for the error.

    Raises:
        InputError: Neither exists.
    """
    if (root / name).is_dir():
        return root / name
    if (root.name == name and root.is_dir()) or (flat is not None and (root / flat).is_dir()):
        return root
    accepted = [
        f"{name}/",
        *([f"{flat}/"] if flat else []),
        *([alternative] if alternative else []),
    ]
    raise InputError(
        f"data.root={root}: {' or '.join(accepted)} not found. Set data.root to the folder in "
        "which the archive was unpacked."
    )


def torchvision_samples(dataset: VisionDataset) -> Samples:
    """Return the files and classes of a torchvision dataset that was opened with `loader=str`."""
    return [dataset[index] for index in range(len(dataset))]


def read_lines(file: Path) -> list[str]:
    """Return the lines of a list that comes with a dataset.

    Raises:
        InputError: The file is missing.
    """
    if not file.is_file():
        raise incomplete(file.parent, file.name)
    return file.read_text().splitlines()


def read_table(file: Path, columns: int, separator: str | None = None) -> list[list[str]]:
    """Return the columns of a list that comes with a dataset. The last takes the rest of a line.

    Raises:
        InputError: The file is missing, or a line has too few columns.
    """
    rows = [line.split(separator, columns - 1) for line in read_lines(file)]
    for number, row in enumerate(rows, start=1):
        if len(row) < columns:
            raise InputError(
                f"{file}: line {number} has {len(row)} of {columns} columns. Unpack the complete "
                "archive again."
            )
    return rows


def read_mat(file: Path, name: str) -> Any:
    """Return a variable of a MATLAB file that comes with a dataset.

    Raises:
        InputError: The file is missing or has no such variable.
    """
    if not file.is_file():
        raise incomplete(file.parent, file.name)
    try:
        return loadmat(str(file), squeeze_me=True)[name]
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{file}: no variable {name!r} ({error}). Unpack the archive again."
        ) from error


def incomplete(folder: Path, missing: str) -> InputError:
    """Return the error for an incomplete or wrong archive."""
    return InputError(f"{folder}: {missing} is missing. Unpack the complete archive again.")


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: 1 fault, 2 classes, 1,000 images."""
    plural = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{plural}"
