"""Data sets of image files."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from smmix_pl.data.datamodule import ImageData, Images, Split
from smmix_pl.data.io.cache import PixelCache
from smmix_pl.data.io.file_lists import Samples
from smmix_pl.data.io.images import Source, reading_lists, transformed
from smmix_pl.data.transforms import Transform
from smmix_pl.data.validation import inspect


class LabeledImages(Dataset[tuple[Tensor, int]]):
    """Images in files or tar files, decoded when asked for.

    Args:
        samples: Where each image is, and its class number.
        transform: From an opened Pillow image to a tensor; it is what decodes.
        cache: Decode each image once and keep its pixels in memory.
    """

    def __init__(
        self, samples: Sequence[tuple[Source, int]], transform: Transform, cache: bool = False
    ) -> None:
        self.samples = samples
        self.targets = [label for _, label in samples]
        self.transform = transform
        # A check looks at files, not at the pixels that come of them
        keep = cache and transform is not inspect
        self.cache = PixelCache([source for source, _ in samples]) if keep else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image and its class number.

        Raises:
            BadImage: The file cannot be read as an image.
        """
        source, label = self.samples[index]
        if self.cache is not None:
            return self.transform(self.cache[index]), label
        return transformed(source, self.transform), label


class FileData(ImageData):
    """A data set of image files; a subclass lists them. Arguments: see `ImageData`."""

    @abstractmethod
    def samples(self, split: Split) -> Samples:
        """Where each image of a part is, and its class number.

        Raises:
            InputError: The part is missing or is not what it should be.
        """

    def images(self, split: Split, transform: Transform) -> Images:
        """The listed files, decoded when asked for."""
        return LabeledImages(self.checked_samples(split), transform, self.cache)

    def checked_samples(self, split: Split) -> Samples:
        """The samples, where nothing is wrong with the lists that they are read from.

        Raises:
            InputError: Something is.
        """
        with reading_lists(self.root):
            return self.samples(split)
