"""Stanford Cars, with the original devkit or in class folders."""

from torchvision import datasets

from smmix_pl.data.base import Split
from smmix_pl.data.files import (
    FileData,
    Samples,
    class_folders,
    folder_samples,
    incomplete,
    listed,
    unpacked,
)
from smmix_pl.data.inspection import Sizes


class StanfordCars(FileData):
    """Stanford Cars (Krause et al., 2013): 196 models, 8,144 training and 8,041 test images.

    ``root`` holds ``stanford_cars/`` with the original ``devkit/``, ``cars_train/``,
    ``cars_test/`` and ``cars_test_annos_withlabels.mat``; or class folders in ``train/`` and
    ``test/``, as the set is passed on since its owner's page is gone. Arguments: see `ImageData`.
    """

    sizes = Sizes(8144, 8041, 8041)

    def find_classes(self) -> list[str]:
        """Maker, model, year."""
        if (self.root / "train").is_dir():
            return class_folders(self.root / "train")
        self.folder = unpacked(self.root, "stanford_cars", "or class folders in train/ and test/")
        return self._devkit("train").classes

    def samples(self, split: Split) -> Samples:
        """The official split."""
        part = "train" if split == "train" else "test"
        if (self.root / "train").is_dir():
            return folder_samples(self.root / part, self.class_names)
        return listed(self._devkit(part))

    def _devkit(self, part: str) -> datasets.StanfordCars:
        try:
            return datasets.StanfordCars(str(self.folder.parent), part, loader=str)
        except (RuntimeError, FileNotFoundError, ValueError, LookupError) as error:
            raise incomplete(
                self.folder, "devkit/, cars_train/, cars_test/ and the labels"
            ) from error
