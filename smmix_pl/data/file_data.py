"""Datasets of image files."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.io.cache import PixelCache
from smmix_pl.data.io.file_lists import Samples
from smmix_pl.data.io.images import Source, reading_lists, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.data.validation import inspect


class LabeledImages(Dataset[tuple[Tensor, int]]):
    """Images in files or tar files, decoded on access.

    Args:
        samples: Source and class index of each image.
        transform: Maps an opened Pillow image to a tensor, which decodes it.
        cache: Decode each image once and keep its pixels in memory.
    """

    def __init__(
        self, samples: Sequence[tuple[Source, int]], transform: Transform, cache: bool = False
    ) -> None:
        self.samples = samples
        self.targets = [label for _, label in samples]
        self.transform = transform
        # A check inspects the files, not their pixels
        use_cache = cache and transform is not inspect
        self.cache = PixelCache([source for source, _ in samples]) if use_cache else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image and its class index.

        Raises:
            BadImage: The image cannot be read.
        """
        source, label = self.samples[index]
        if self.cache is not None:
            return self.transform(self.cache[index]), label
        return transformed(source, self.transform), label


class FileData(ImageData):
    """Base class of datasets of image files. A subclass lists them. Arguments: see `ImageData`."""

    reads_root = True

    @abstractmethod
    def samples(self, split: Split) -> Samples:
        """Return the source and class index of each image of a split.

        Raises:
            InputError: The split is missing or damaged.
        """

    def images(self, split: Split, transform: Transform) -> Images:
        """Open the listed files, to be decoded on access."""
        return LabeledImages(self.checked_samples(split), transform, self.cache == "host")

    def checked_samples(self, split: Split) -> Samples:
        """Return the samples, and convert errors in the lists they are read from.

        Raises:
            InputError: The lists are damaged.
        """
        with reading_lists(self.root):
            return self.samples(split)
