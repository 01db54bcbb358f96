"""Stanford Cars, with the original devkit or in class folders."""

from smmix_pl.data.datamodule import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import (
    Samples,
    class_folders,
    folder_samples,
    incomplete,
    read_mat,
    unpacked,
)
from smmix_pl.data.validation import Sizes


class StanfordCars(FileData):
    """Stanford Cars (Krause et al., 2013): 196 models, 8,144 training and 8,041 test images.

    ``root`` holds the original ``devkit/``, ``cars_train/``, ``cars_test/`` and
    ``cars_test_annos_withlabels.mat``, or ``stanford_cars/`` with them, as torchvision has it; or
    class folders in ``train/`` and ``test/``, as the set is passed on since its owner's page is
    gone. Class folders are numbered by their sorted names, which is another order than the
    devkit's: a checkpoint of one does not fit the other. Arguments: see `ImageData`.
    """

    sizes = Sizes(8144, 8041, 8041)

    def find_classes(self) -> list[str]:
        """Maker, model, year."""
        if (self.root / "train").is_dir():
            return class_folders(self.root / "train")
        either = "class folders in train/ and test/"
        self.folder = unpacked(self.root, "stanford_cars", flat="devkit", otherwise=either)
        return list(read_mat(self.folder / "devkit" / "cars_meta.mat", "class_names"))

    def samples(self, split: Split) -> Samples:
        """The official split."""
        part = "train" if split == "train" else "test"
        if (self.root / "train").is_dir():
            return folder_samples(self.root / part, self.class_names)
        images = self.folder / f"cars_{part}"
        if not images.is_dir():
            raise incomplete(self.folder, f"cars_{part}/")
        lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
        return [
            (str(images / row["fname"]), int(row["class"]) - 1)
            for row in read_mat(self.folder / lists[part], "annotations")
        ]
