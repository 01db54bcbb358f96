"""Images with COCO-format annotations, by their largest object."""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from smmix_pl.data.base import Split
from smmix_pl.data.coco_json import CocoImage, read_coco
from smmix_pl.data.io.file_lists import Samples, counted
from smmix_pl.data.objects import Annotation, ObjectData
from smmix_pl.errors import InputError


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
        self.folders = {"train": train, "val": test, "test": test}
        self.annotation_file = annotations

    def find_classes(self) -> list[str]:
        """Return the categories in the order of their ids."""
        return read_coco(self._json("test"))[0]

    def samples(self, split: Split) -> Samples:
        """Return the images that have an object."""
        images = self._images(split)
        excluded = len(read_coco(self._json(split))[1]) - len(images)
        if excluded:
            place = self.root / self.folders[split]
            rank_zero_info(f"{place}: {counted(excluded, 'image')} without an object excluded")
        return [(self._file(split, image), image.largest.category) for image in images]

    def annotations(self) -> list[Annotation]:
        """Return boxes and masks."""
        return [
            Annotation(
                self._file("test", image),
                str(self._json("test")),
                [instance.box for instance in image.objects],
                image.class_mask,
            )
            for image in self._images("test")
        ]

    def _images(self, split: Split) -> list[CocoImage]:
        names, images = read_coco(self._json(split))
        if names != self.class_names:
            raise InputError(
                f"{self._json(split)}: its categories differ from those of {self._json('test')}. "
                "Use the same categories in all splits."
            )
        for image in images:
            if not (self.root / self.folders[split] / image.name).is_file():
                raise InputError(
                    f"{self._json(split)}: lists {image.name}, which is missing in "
                    f"{self.root / self.folders[split]}. Set data.{split} or add the image."
                )
        with_objects = [image for image in images if image.objects]
        if not with_objects:
            raise InputError(f"{self._json(split)}: has no object. Check data.annotations.")
        return with_objects

    def _file(self, split: Split, image: CocoImage) -> str:
        return str(self.root / self.folders[split] / image.name)

    def _json(self, split: Split) -> Path:
        return self.root / self.annotation_file.format(split=self.folders[split])
