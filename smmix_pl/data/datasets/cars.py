"""Stanford Cars, with the original devkit or in class folders."""

from functools import cached_property
from pathlib import Path

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import (
    Samples,
    class_folders,
    dataset_folder,
    folder_samples,
    incomplete,
    read_mat,
)
from smmix_pl.data.validation import Sizes


class StanfordCars(FileData):
    """Stanford Cars (Krause et al., 2013): 196 models, 8,144 training and 8,041 test images.

    `root` holds the original `devkit/`, `cars_train/`, `cars_test/`, and
    `cars_test_annos_withlabels.mat`, or `stanford_cars/` with them, as in torchvision. Or it holds
    class folders in `train/` and `test/`, the layout of copies made since the owner's page is gone.

    Class folders are numbered by sorted name, which differs from the order of the devkit. A
    checkpoint trained on one layout does not fit the other. Arguments: see `ImageData`.
    """

    class_count = 196
    sizes = Sizes(8144, 8041, 8041)

    def find_classes(self) -> list[str]:
        """Return the models as make, model, and year."""
        if self._has_class_folders:
            return class_folders(self.root / "train")
        return list(read_mat(self._folder / "devkit" / "cars_meta.mat", "class_names"))

    def samples(self, split: Split) -> Samples:
        """Return the official split."""
        part = "train" if split == "train" else "test"
        if self._has_class_folders:
            return folder_samples(self.root / part, self.class_names)
        images = self._folder / f"cars_{part}"
        if not images.is_dir():
            raise incomplete(self._folder, f"cars_{part}/")
        lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
        return [
            (str(images / row["fname"]), int(row["class"]) - 1)
            for row in read_mat(self._folder / lists[part], "annotations")
        ]

    @property
    def _has_class_folders(self) -> bool:
        return (self.root / "train").is_dir()

    @cached_property
    def _folder(self) -> Path:
        alternative = "class folders in train/ and test/"
        return dataset_folder(self.root, "stanford_cars", "devkit", alternative)
