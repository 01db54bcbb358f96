"""From a file, or a slice of a tar file, to an RGB image; what cannot be read is told by name."""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from smmix_pl.errors import InputError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
"""Of images that are opened. Pillow goes by content, not by name, and would hand PostScript in a
file called ``cat.jpg`` to Ghostscript, which runs it."""
Image.init()  # until then, Pillow knows some of them only

UNREADABLE = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    struct.error,
    MemoryError,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are not images, or only the beginning of one."""


THINNEST = 1000
"""Sides of one length to the other. Beyond, resizing by the shorter side fills the memory."""


class BadImage(InputError):
    """One image cannot be used; names the file and the reason."""


class TarSlice(NamedTuple):
    """An image inside an uncompressed tar file, found without unpacking it."""

    tar: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"


class Content(NamedTuple):
    """An image that is in memory already, undecoded."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = str | TarSlice | Content


def open_image(source: Source) -> Image.Image:
    """Open an image as Pillow does: its header is read, its pixels are not decoded yet.

    Raises:
        BadImage: The file is missing, empty, no image, or would fill the memory when decoded.
    """
    try:
        image = Image.open(_readable(source), formats=FORMATS)
    except Exception as error:  # each of Pillow's formats raises what it likes
        raise bad_image(source, error) from error
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise BadImage(
            f"{source} unpacks to {pixels:,} pixels, more than Pillow's safe limit of "
            f"{Image.MAX_IMAGE_PIXELS:,}"
        )
    if max(image.size) > THINNEST * min(image.size):
        raise BadImage(
            f"{source} has {image.width} x {image.height} pixels, one side more than {THINNEST} "
            "times the other"
        )
    return image


def _readable(source: Source) -> str | BytesIO:
    if isinstance(source, str):
        if not stat.S_ISREG(os.stat(source).st_mode):  # to open a pipe is to wait for ever
            raise OSError("no plain file")
        return source
    return BytesIO(source.content if isinstance(source, Content) else read_slice(source))


def read_slice(source: TarSlice) -> bytes:
    """The bytes of one image in a tar file."""
    with open(source.tar, "rb") as file:
        file.seek(source.offset)
        return file.read(source.size)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB, as timm and torchvision read it.

    The first frame of an animation; no EXIF rotation. Only 16-bit gray differs from Pillow's own
    conversion, which turns every value above 255 white: here the high byte is kept.
    """
    # Mode I is of 32 bits, but Pillow also gives it to 16-bit PPM, and older ones to such PNG
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        gray = np.asarray(image).astype(np.int64)
        return Image.fromarray((gray >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def bad_image(source: Source, error: BaseException) -> BadImage:
    """The sentence for what Pillow raised."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # it names a file in memory by its address
        reason = "it is of no known format"
    return BadImage(f"{source} cannot be read as an image ({reason})")


def transformed(source: Source, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """Open an image and transform it, which decodes it.

    Raises:
        BadImage: It cannot be read as an image.
    """
    with open_image(source) as image:
        try:
            return transform(image)
        except UNREADABLE as error:
            raise bad_image(source, error) from error


def read_array(file: Path) -> np.ndarray:
    """A ``.npy`` file, mapped into memory; no pickled objects.

    Raises:
        InputError: It is missing, cut off, or holds something else than numbers.
    """
    try:
        return np.lib.format.open_memmap(str(file), mode="r")
    except FileNotFoundError as error:
        raise InputError(
            f"{file.parent} does not have {file.name}; unpack its archive again, in full"
        ) from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{file} is cut off or no array ({error}); unpack it again") from error


@contextmanager
def reading_lists(root: Path) -> Iterator[None]:
    """While a data set's own lists are read, which tell classes and splits.

    Raises:
        InputError: They do not fit together, or not what they are read as.
    """
    try:
        yield
    except Exception as error:  # what parsers of such files raise has no common type
        if isinstance(error, InputError) or getattr(error, "errno", None):
            raise
        told = f"{type(error).__name__}: {error}"
        raise InputError(
            f"a list in {root} is cut off, or another data set's ({told}); unpack its archive "
            "again, in full"
        ) from error


def existing_folder(folder: Path, option: str = "data.root") -> Path:
    """The folder itself.

    Raises:
        InputError: It is not there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; point {option} at where the images are")
    return folder
