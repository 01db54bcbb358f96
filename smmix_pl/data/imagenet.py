"""ImageNet-1k, and any data set laid out like it: train/ and val/ of class folders."""

from smmix_pl.data.base import ImageData, Images, Split
from smmix_pl.data.files import class_folders, existing_folder, image_folder
from smmix_pl.data.transforms import Transform
from smmix_pl.errors import InputError


class ImageNet(ImageData):
    """ImageNet in its usual layout: ``root/train/<class>/*.JPEG`` and ``root/val/<class>/*.JPEG``.

    The 50,000 validation images are also the test set, as in every paper. Classes are the folders
    in ``train``, so a subset of ImageNet works as well. Arguments: see `ImageData`.
    """

    def find_classes(self) -> list[str]:
        """Names of the folders in ``train``."""
        existing_folder(self.root, "data.root")
        if not (self.root / "train").is_dir():
            raise InputError(
                f"{self.root} has no folder train/; point data.root at the folder that holds "
                "train/ and val/"
            )
        return class_folders(self.root / "train")

    def images(self, split: Split, transform: Transform) -> Images:
        """``train/`` for train, ``val/`` for validation and test."""
        folder = self.root / ("train" if split == "train" else "val")
        return image_folder(folder, self.class_names, transform)
