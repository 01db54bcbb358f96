"""Image files on disk: folders of class folders, and loose files to predict."""

from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class ImageFiles(Dataset[tuple[Tensor, str]]):
    """Every image file below a folder, in order, with its path.

    Args:
        folder: Searched recursively.
        transform: From a PIL image to a tensor.

    Raises:
        InputError: The folder is missing or holds no image.
    """

    def __init__(self, folder: Path, transform: Transform) -> None:
        existing_folder(folder, "data.predict_dir")
        self.files = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS
        )
        if not self.files:
            raise InputError(f"no image file below {folder}; point data.predict_dir at images")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB")), str(self.files[index])


class NamedImages(Dataset[tuple[Tensor, str]]):
    """A labelled data set as (image, name): the file's path, or its index where it has no file.

    Args:
        images: A map-style data set of (image, class number).
    """

    def __init__(self, images: Dataset[tuple[Tensor, int]]) -> None:
        self.images = images
        self.samples: list[tuple[str, int]] | None = getattr(images, "samples", None)

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        name = f"#{index}" if self.samples is None else self.samples[index][0]
        return self.images[index][0], name


def existing_folder(folder: Path, option: str) -> Path:
    """The folder itself.

    Raises:
        InputError: It is not there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; point {option} at where the images are")
    return folder


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted, which is the order of their numbers.

    Raises:
        InputError: The folder is missing or has no class folder.
    """
    existing_folder(folder, "data.root")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise InputError(
            f"{folder} has no class folders; it must hold one folder of images a class"
        )
    return names


def image_folder(folder: Path, class_names: list[str], transform: Transform) -> ImageFolder:
    """Images in class folders, numbered by the given class names.

    Raises:
        InputError: The folder is missing, its classes are not the given ones, or one is empty.
    """
    found = class_folders(folder)
    if found != class_names:
        odd = sorted(set(found) ^ set(class_names))
        raise InputError(
            f"{folder} has {len(found)} class folders where {len(class_names)} are expected; "
            f"{odd[0]!r} is only in one of the two lists"
        )
    try:
        return ImageFolder(str(folder), transform)
    except FileNotFoundError as error:  # torchvision names the empty class folders
        raise InputError(f"{folder}: {error}; remove the empty folder or fill it") from error
