"""Oxford Flowers-102."""

from typing import ClassVar

from torchvision import datasets

from smmix_pl.data.base import Split
from smmix_pl.data.download import Archive
from smmix_pl.data.files import FileData, Samples, incomplete, listed, unpacked
from smmix_pl.data.inspection import Sizes


class Flowers102(FileData):
    """Oxford Flowers-102 (Nilsback and Zisserman, 2008): 102 species, 6,149 test images.

    Train and validation have 10 images of each species. ``root`` holds ``flowers-102/`` with
    ``jpg/``, ``imagelabels.mat`` and ``setid.mat``. Arguments: see `ImageData`.
    """

    source: ClassVar[type[datasets.Flowers102]] = datasets.Flowers102
    archives = tuple(
        Archive(
            f"https://www.robots.ox.ac.uk/~vgg/data/flowers/102/{file}", md5, gives, "flowers-102"
        )
        for file, md5, gives in (
            ("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", "jpg"),
            ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", "imagelabels.mat"),
            ("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", "setid.mat"),
        )
    )
    sizes = Sizes(1020, 1020, 6149)

    def find_classes(self) -> list[str]:
        """The species in their official order."""
        self.folder = unpacked(self.root, "flowers-102")
        return list(self.source.classes)

    def samples(self, split: Split) -> Samples:
        """The official three-way split."""
        try:
            return listed(self.source(str(self.folder.parent), split, loader=str))
        except RuntimeError as error:
            raise incomplete(self.folder, "jpg/, imagelabels.mat and setid.mat") from error
