"""ImageNet-1k in its original layouts: class folders, a flat validation folder, or tar files."""

from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from timm.data import ImageNetInfo

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import (
    Samples,
    class_folders,
    folder_samples,
    image_files,
    read_mat,
    subfolders,
)
from smmix_pl.data.io.images import Source
from smmix_pl.data.io.tar import images_in_tar
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError

WORDNET_IDS: list[str] = ImageNetInfo().label_names()
"""ImageNet's 1,000 classes in the order of their indices."""

TARS = {
    "train": ("train.tar", "ILSVRC2012_img_train.tar"),
    "val": ("val.tar", "ILSVRC2012_img_val.tar"),
}
DEVKIT = Path("ILSVRC2012_devkit_t12/data")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


class ImageNet(FileData):
    """ImageNet-1k (Russakovsky et al., 2015) in any of its original layouts.

    For training, `root` holds `train/<class>/*.JPEG`, or `ILSVRC2012_img_train.tar` (tar files in a
    tar file), or `train.tar` (class folders). For validation it holds `val/<class>/*.JPEG`, or
    `val.tar` (class folders). With the unpacked devkit `ILSVRC2012_devkit_t12`, it can also hold
    the flat `val/ILSVRC2012_val_*.JPEG` or `ILSVRC2012_img_val.tar`. A single `imagenet.tar` of
    `train/` and `val/` works as well.

    As in papers, the 50,000 validation images are also the test set. The classes are the folders in
    `train`, so a subset of ImageNet works too. With all 1,000 classes, the check compares the
    number of images. Arguments: see `ImageData`.
    """

    single_tar: ClassVar[str] = "imagenet.tar"

    def find_classes(self) -> list[str]:
        """Return the classes in words."""
        if self.sizes is None and self.folders == WORDNET_IDS:
            self.sizes = Sizes(1_281_167, 50_000, 50_000)
        return readable_names(self.folders)

    def samples(self, split: Split) -> Samples:
        """Return `train` for training, and `val` for validation and test."""
        part = "train" if split == "train" else "val"
        folder = self.root / part
        if folder.is_dir():
            if part == "val" and not subfolders(folder):
                return self._by_devkit(list(image_files(folder)[0]))
            return folder_samples(folder, self.folders)
        for name in TARS[part]:
            if (self.root / name).is_file():
                return self._in_tar(self.root / name)
        if (self.root / self.single_tar).is_file():
            slices = images_in_tar(self.root / self.single_tar)
            return self._by_folder([s for s in slices if part in PurePosixPath(s.name).parts])
        raise InputError(
            f"data.root={self.root}: no folder {part}/, and none of {', '.join(TARS[part])}, "
            f"{self.single_tar}. Set data.root to the folder that holds one of them."
        )

    @cached_property
    def folders(self) -> list[str]:
        """Names of the class folders, sorted in the order of class indices."""
        if (self.root / "train").is_dir():
            return class_folders(self.root / "train")
        if any((self.root / tar).is_file() for tar in (*TARS["train"], self.single_tar)):
            return WORDNET_IDS
        raise InputError(
            f"data.root={self.root}: no folder train/ found. Set data.root to the folder that "
            f"holds train/ and val/, or {TARS['train'][1]}."
        )

    def _in_tar(self, tar: Path) -> Samples:
        slices = images_in_tar(tar)
        flat = slices and all("/" not in found.name for found in slices)
        return self._by_devkit(list(slices)) if flat else self._by_folder(list(slices))

    def _by_folder(self, sources: list[Source]) -> Samples:
        """Label images by the name of their folder."""
        numbers = {name: number for number, name in enumerate(self.folders)}
        labeled: Samples = []
        for source in sources:
            folder = PurePosixPath(str(source).replace(":", "/")).parent.name
            if folder not in numbers:
                raise InputError(f"{source}: {folder!r} is not a known class. Check the tar file.")
            labeled.append((source, numbers[folder]))
        return labeled

    def _by_devkit(self, sources: list[Source]) -> Samples:
        """Label the flat validation images, sorted by name, by the list in the devkit."""
        truth = read_devkit(self.root)
        if len(truth) != len(sources):
            raise InputError(
                f"data.root={self.root}: {len(sources)} flat validation images, but the devkit "
                f"lists {len(truth)}. Unpack ILSVRC2012_img_val.tar again."
            )
        numbers = {name: number for number, name in enumerate(self.folders)}
        missing = sorted(set(truth) - set(numbers))
        if missing:
            raise InputError(
                f"data.root={self.root}: flat validation images of class {missing[0]!r}, which has "
                "no folder in train/. Add it, or sort the images of your classes into "
                "val/<class>/."
            )
        return [(source, numbers[name]) for source, name in zip(sources, truth, strict=True)]


def read_devkit(root: Path) -> list[str]:
    """Return the WordNet id of each validation image, in the order of file names.

    Raises:
        InputError: The unpacked devkit is missing.
    """
    meta, truth = root / DEVKIT / "meta.mat", root / DEVKIT / TRUTH
    if not truth.is_file():
        truth = root / TRUTH
    if not (meta.is_file() and truth.is_file()):
        raise InputError(
            f"data.root={root}: flat validation images without their labels. Unpack "
            "ILSVRC2012_devkit_t12.tar.gz there, or sort the images into class folders."
        )
    synsets = read_mat(meta, "synsets")
    ids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    return [ids[int(line)] for line in truth.read_text().split()]


def readable_names(folders: list[str]) -> list[str]:
    """Return class names: WordNet ids in words, other folder names unchanged.

    If two classes have the same words (ImageNet has two cranes), their ids are added.
    """
    info = ImageNetInfo()
    known = set(WORDNET_IDS)
    words = [
        info.label_name_to_description(name).split(",")[0] if name in known else name
        for name in folders
    ]
    return [
        f"{word} ({folder})" if words.count(word) > 1 and word != folder else word
        for word, folder in zip(words, folders, strict=True)
    ]
