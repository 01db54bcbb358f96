"""CUB-200-2011: birds."""

from functools import cached_property
from pathlib import Path

from smmix_pl.data.base import Split
from smmix_pl.data.io.download import Archive
from smmix_pl.data.io.file_lists import Samples, dataset_folder, read_table
from smmix_pl.data.objects import Annotation, ObjectData
from smmix_pl.data.validation import Sizes


class CUB(ObjectData):
    """CUB-200-2011 (Wah et al., 2011): 200 bird species, 5,994 training and 5,794 test images.

    `root` holds `CUB_200_2011/` with its lists `images.txt`, `image_class_labels.txt`,
    `train_test_split.txt`, and `classes.txt`, and `images/`. `bounding_boxes.txt` has one box per
    image. Arguments: see `ImageData`.
    """

    archives = (
        Archive(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            gives="CUB_200_2011",
        ),
    )
    class_count = 200
    sizes = Sizes(5994, 5794, 5794)

    def find_classes(self) -> list[str]:
        """Return the species: `001.Black_footed_Albatross` becomes Black footed Albatross."""
        return [name.split(".", 1)[-1].replace("_", " ") for name in self._table("classes.txt")]

    def samples(self, split: Split) -> Samples:
        """Return the official split."""
        is_train = self._table("train_test_split.txt")
        labels = self._table("image_class_labels.txt")
        wanted = "1" if split == "train" else "0"
        return [
            (str(self._folder / "images" / name), int(label) - 1)
            for name, label, train in zip(self._table("images.txt"), labels, is_train, strict=True)
            if train == wanted
        ]

    def annotations(self) -> list[Annotation]:
        """Return the box of each bird."""
        boxes = dict(zip(self._table("images.txt"), self._table("bounding_boxes.txt"), strict=True))
        images, source = self._folder / "images", str(self._folder / "bounding_boxes.txt")
        found = []
        for file, _ in self.samples("test"):
            name = Path(str(file)).relative_to(images).as_posix()
            left, top, width, height = map(float, boxes[name].split())
            box = (left, top, left + width, top + height)
            found.append(Annotation(str(file), source, [box]))
        return found

    @cached_property
    def _folder(self) -> Path:
        return dataset_folder(self.root, "CUB_200_2011")

    def _table(self, name: str) -> list[str]:
        """Return the second column of a list, in the order of the first, which starts at 1."""
        return [value for _, value in read_table(self._folder / name, 2, " ")]
