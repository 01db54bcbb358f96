"""Images with COCO-format annotations, by their largest object."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from smmix_pl.data.base import Split
from smmix_pl.data.coco_json import CocoFiles, CocoImage, read_coco
from smmix_pl.data.io.file_lists import Samples, counted
from smmix_pl.data.objects import Annotation, ObjectData


class COCOObjects(ObjectData):
    """Photographs with boxes and masks: COCO (Lin et al., 2014), or your own in its format.

    The class of an image is the category of its largest object. Images without an object are
    excluded, as are crowds, whose pixels are void. `root` holds a folder of images per split and
    one JSON file for each.

    Args:
        train: Folder of the training images, relative to root.
        test: Folder of the images for validation and test.
        annotations: JSON file of a split, relative to root. `{split}` stands for the name of the
            folder.
        **options: See `ImageData`.
    """

    def __init__(
        self,
        train: str = "train2017",
        test: str = "val2017",
        annotations: str = "annotations/instances_{split}.json",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        folders = {"train": train, "val": test, "test": test}
        self.files = CocoFiles(self.root, folders, annotations)

    def find_classes(self) -> list[str]:
        """Return the categories in the order of their ids."""
        return read_coco(self.files.json("test"))[0]

    def samples(self, split: Split) -> Samples:
        """Return the images that have an object."""
        images = self.files.images(split, self.class_names)
        shown = [image for image in images if image.objects]
        if len(shown) < len(images):
            place = self.root / self.files.folders[split]
            excluded = counted(len(images) - len(shown), "image")
            rank_zero_info(f"{place}: {excluded} without an object excluded")
        return [(str(self.files.file(split, one)), one.largest.category) for one in shown]

    def annotations(self) -> list[Annotation]:
        """Return boxes and masks."""
        images = self.files.images("test", self.class_names)
        return [self._annotation(image) for image in images if image.objects]

    def _annotation(self, image: CocoImage) -> Annotation:
        return Annotation(
            str(self.files.file("test", image)),
            str(self.files.json("test")),
            [instance.box for instance in image.objects],
            image.class_mask,
        )
