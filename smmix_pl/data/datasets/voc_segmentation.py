"""Pascal VOC 2012 segmentation."""

from smmix_pl.data.base import Split
from smmix_pl.data.datasets.voc_objects import CATEGORIES
from smmix_pl.data.dense import DenseData, Pair
from smmix_pl.data.io.file_lists import dataset_folder
from smmix_pl.data.io.images import reading_lists


class VOCSegmentation(DenseData):
    """Pascal VOC 2012 (Everingham et al.): 20 classes and background, 1,464 / 1,449 images.

    `root` holds `VOCdevkit/VOC2012/`, as in torchvision. Tests use the validation set, because the
    masks of the test set are not public. Arguments: see `DenseData`.
    """

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return ["background", *CATEGORIES]

    def pairs(self, split: Split) -> list[Pair]:
        """Return the official split."""
        folder = dataset_folder(self.root, "VOCdevkit/VOC2012", flat="JPEGImages")
        part = "train" if split == "train" else "val"
        with reading_lists(self.root):
            names = (folder / f"ImageSets/Segmentation/{part}.txt").read_text().split()
        images, masks = folder / "JPEGImages", folder / "SegmentationClass"
        return [(images / f"{name}.jpg", masks / f"{name}.png") for name in names]
