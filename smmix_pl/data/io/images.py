"""Reading images from files, tar members, or memory as RGB. Errors name the image."""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor

from smmix_pl.errors import InputError

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"),
    *(["AVIF"] if features.check("avif") else []),
)
"""Formats that are opened. Pillow detects the format from the content, not from the name, and would
pass PostScript in a file called `cat.jpg` to Ghostscript, which executes it."""
Image.init()  # registers all formats and their suffixes

SUFFIXES = tuple(
    sorted(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
)
"""File name suffixes of the formats that are opened."""

UNREADABLE = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    struct.error,
    MemoryError,
    Image.DecompressionBombError,
)
"""Exceptions that Pillow raises while decoding damaged files."""

MAX_SIDE_RATIO = 1000
"""Maximum ratio of the sides. Resizing the shorter side of thinner images exhausts the memory."""


class BadImage(InputError):
    """Exception for one unusable image. The message names the image and the reason."""

    place: int
    """Index in the dataset, set by `CatchBadImages`."""


class TarSlice(NamedTuple):
    """File inside an uncompressed tar file, located without unpacking it."""

    tar: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"


class Content(NamedTuple):
    """Encoded image in memory."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = str | TarSlice | Content


def is_image_name(name: str) -> bool:
    """Return True if a file name has the suffix of a format that is opened."""
    return name.lower().endswith(SUFFIXES)


def open_image(source: Source) -> Image.Image:
    """Open an image and read its header. Pixels are decoded later.

    Raises:
        BadImage: The file is missing, empty, not an image, or too large to decode safely.
    """
    try:
        image = Image.open(_readable(source), formats=FORMATS)
    except Exception as error:  # every format of Pillow raises different exceptions
        raise bad_image(source, error) from error
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise BadImage(
            f"{source}: image has {pixels:,} pixels, above Pillow's safety limit of "
            f"{Image.MAX_IMAGE_PIXELS:,}"
        )
    if max(image.size) > MAX_SIDE_RATIO * min(image.size):
        raise BadImage(
            f"{source}: image has {image.width} x {image.height} pixels, with one side more than "
            f"{MAX_SIDE_RATIO} times as long as the other"
        )
    return image


def _readable(source: Source) -> str | BytesIO:
    if isinstance(source, str):
        if not stat.S_ISREG(os.stat(source).st_mode):  # opening a pipe would block forever
            raise OSError("not a regular file")
        return source
    return BytesIO(source.content if isinstance(source, Content) else read_slice(source))


def read_slice(source: TarSlice) -> bytes:
    """Return the bytes of one file in a tar file."""
    with open(source.tar, "rb") as file:
        file.seek(source.offset)
        return file.read(source.size)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to 8-bit RGB, as timm and torchvision do, with two exceptions.

    Pillow clips every value above 255 to white. 16-bit grayscale keeps its high byte instead, and
    32-bit images are rejected if a value does not fit in 8 bits.

    Only the first frame or page is converted. EXIF rotation is ignored, except in TIFF files, which
    Pillow rotates itself.

    Raises:
        ValueError: The image has floating-point values, or 32-bit values outside [0, 255].
    """
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; convert it to 8 or 16 bits")
    # Mode I has 32 bits, but Pillow also uses it for 16-bit PPM, and older versions for 16-bit PNG
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        gray = np.asarray(image).astype(np.int64)
        return Image.fromarray((gray >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        low, high = image.getextrema()
        if low < 0 or high > 255:  # type: ignore[operator]
            raise ValueError(
                f"32-bit pixels from {low} to {high} do not fit in [0, 255]; convert it to 8 bits"
            )
    return image.convert("RGB")


def bad_image(source: Source, error: BaseException) -> BadImage:
    """Return the error for an exception that Pillow raised."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # its message has the address of the buffer
        reason = "unknown image format"
    return BadImage(f"{source}: cannot be read as an image ({reason})")


def transformed(source: Source, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """Open an image and apply a transform, which decodes it.

    Raises:
        BadImage: The image cannot be read.
    """
    with open_image(source) as image:
        try:
            return transform(image)
        except UNREADABLE as error:
            raise bad_image(source, error) from error


def read_array(file: Path) -> np.ndarray:
    """Map a `.npy` file into memory. Pickled objects are refused.

    Raises:
        InputError: The file is missing, truncated, or not an array of numbers.
    """
    try:
        return np.lib.format.open_memmap(str(file), mode="r")
    except FileNotFoundError as error:
        raise InputError(
            f"{file.parent}: {file.name} is missing. Unpack the complete archive again."
        ) from error
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{file}: truncated or not an array ({error}). Unpack the archive again."
        ) from error


@contextmanager
def reading_lists(root: Path) -> Iterator[None]:
    """Convert any error while a dataset's own lists are read to an `InputError`.

    Raises:
        InputError: A list is truncated or belongs to another dataset.
    """
    try:
        yield
    except Exception as error:  # parsers of such files raise unrelated types
        if isinstance(error, InputError) or getattr(error, "errno", None):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"data.root={root}: a list file is truncated or from another dataset ({reason}). "
            "Unpack the complete archive again."
        ) from error


def existing_folder(folder: Path, option: str = "data.root") -> Path:
    """Return the folder.

    Args:
        folder: Path to check.
        option: Option that sets it.

    Raises:
        InputError: It is missing or not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder. Set {option} to the folder with the images.")
    return folder
