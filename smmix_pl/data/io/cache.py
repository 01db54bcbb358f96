"""Decoded images in memory, shared by the workers of a loader."""

import mmap
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from smmix_pl.data.io.images import UNREADABLE, BadImage, Source, bad_image, open_image, to_rgb
from smmix_pl.errors import InputError


class PixelCache:
    """RGB pixels of many images, each decoded on first access and then kept.

    The memory is one anonymous shared mapping, created before the workers are forked, so an image
    decoded by one worker is available to all. Two workers that decode the same image write the same
    bytes. Pages are allocated when written. Each rank of a distributed run has its own cache.

    Args:
        sources: Images. Their headers are read here to get the sizes.

    Raises:
        InputError: The pixels would take more than half of the machine's memory.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        sizes = [_size(source) for source in sources]
        self.sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        self.starts = np.concatenate([[0], np.cumsum(3 * self.sizes.prod(axis=1))])
        needed = int(self.starts[-1])
        check_memory(needed, "host")
        self.pixels = np.frombuffer(mmap.mmap(-1, max(1, needed)), dtype=np.uint8)
        self.decoded = np.frombuffer(mmap.mmap(-1, max(1, len(sources))), dtype=np.bool_)

    def __getitem__(self, index: int) -> Image.Image:
        """Return one image.

        Raises:
            BadImage: It cannot be read.
        """
        width, height = self.sizes[index]
        pixels = self.pixels[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)
        if not self.decoded[index]:
            pixels[:] = _decode(self.sources[index])
            self.decoded[index] = True
        return Image.fromarray(pixels)


def _size(source: Source) -> tuple[int, int]:
    """Return width and height from the header; (0, 0) for a bad image, whose decoding raises."""
    try:
        with open_image(source) as image:
            return image.size
    except BadImage:
        return (0, 0)


def _decode(source: Source) -> np.ndarray:
    with open_image(source) as image:
        try:
            return np.asarray(to_rgb(image))
        except UNREADABLE as error:
            raise bad_image(source, error) from error


def check_memory(needed: int, cache: str) -> None:
    """Check that decoded images fit in the memory of this machine.

    Args:
        needed: Size of their pixels in bytes.
        cache: Value of the option `data.cache`, for the error.

    Raises:
        InputError: They take more than half of it.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise InputError(
            f"data.cache={cache}: decoded images need {needed / 1e9:.1f} GB, more than half of "
            f"this machine's memory ({memory / 1e9:.1f} GB). Set data.cache=null."
        )
