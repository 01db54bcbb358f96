"""Labeled image files: lists of them, and folders of class folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.io import loadmat  # type: ignore[import-untyped]
from torchvision.datasets import VisionDataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from smmix_pl.data.io.images import Source, existing_folder
from smmix_pl.errors import InputError

Samples = list[tuple[Source, int]]
"""Where each image is, and its class number."""


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted, which is the order of their numbers.

    Raises:
        InputError: The folder is missing or has no class folder.
    """
    names = subfolders(folder)
    if not names:
        raise InputError(
            f"{folder} has no class folders; it must hold one folder of images a class"
        )
    return names


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; not the hidden ones, which hold no images.

    Raises:
        InputError: The folder is missing.
    """
    existing_folder(folder)
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link that leads nowhere; mend or remove it")
    found = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in found if not name.startswith("."))


def folder_samples(folder: Path, expected: Sequence[str]) -> Samples:
    """Images in class folders, numbered by the order of the expected folder names.

    Raises:
        InputError: The folder is missing, its classes are not the expected ones, or one is empty.
    """
    found = class_folders(folder)
    if set(found) != set(expected):
        odd = sorted(set(found) ^ set(expected))
        raise InputError(
            f"{folder} has {len(found)} class folders where {len(expected)} are expected; "
            f"{odd[0]!r} is only in one of the two lists"
        )
    numbers = {name: number for number, name in enumerate(expected)}
    try:
        return make_dataset(str(folder), numbers, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:  # torchvision names the empty class folders
        raise InputError(f"{folder}: {error}; remove the empty folder or fill it") from error


def unpacked(root: Path, name: str, flat: str | None = None, otherwise: str | None = None) -> Path:
    """The folder of a data set: in root, or root itself.

    Args:
        root: Where archives were unpacked.
        name: What the folder is called.
        flat: A folder in it that tells it by any name, where the archives wrap nothing around.
        otherwise: What root may hold instead, in words.

    Raises:
        InputError: It is neither.
    """
    if (root / name).is_dir():
        return root / name
    if (root.name == name and root.is_dir()) or (flat is not None and (root / flat).is_dir()):
        return root
    holds = [f"{name}/", *([f"{flat}/"] if flat else []), *([otherwise] if otherwise else [])]
    raise InputError(
        f"{root} does not hold {' or '.join(holds)}; point data.root at the folder that the "
        "archive was unpacked in"
    )


def listed(dataset: VisionDataset) -> Samples:
    """The files and classes of a torchvision data set that was opened with ``loader=str``."""
    return [dataset[index] for index in range(len(dataset))]


def read_lines(file: Path) -> list[str]:
    """Lines of a list that comes with a data set.

    Raises:
        InputError: It is not there.
    """
    if not file.is_file():
        raise incomplete(file.parent, file.name)
    return file.read_text().splitlines()


def read_table(file: Path, columns: int, separator: str | None = None) -> list[list[str]]:
    """The columns of a list that comes with a data set; the last takes what is left of a line.

    Raises:
        InputError: It is not there, or a line has fewer.
    """
    rows = [line.split(separator, columns - 1) for line in read_lines(file)]
    for number, row in enumerate(rows, start=1):
        if len(row) < columns:
            raise InputError(
                f"line {number} of {file} has {len(row)} of {columns} columns; unpack its archive "
                "again, in full"
            )
    return rows


def read_mat(file: Path, name: str) -> Any:
    """A variable of a MATLAB file that comes with a data set.

    Raises:
        InputError: The file is not there, or has none of that name.
    """
    if not file.is_file():
        raise incomplete(file.parent, file.name)
    try:
        return loadmat(str(file), squeeze_me=True)[name]
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{file} holds no {name} ({error}); unpack its archive again") from error


def incomplete(folder: Path, lacks: str) -> InputError:
    """The sentence for an archive that was unpacked in part, or is another one."""
    return InputError(f"{folder} does not have {lacks}; unpack its archive again, in full")
