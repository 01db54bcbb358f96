"""ImageNet-1k as it is handed out: class folders, the flat validation folder, or tar files."""

from pathlib import Path, PurePosixPath
from typing import ClassVar

from timm.data import ImageNetInfo
from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.datamodule import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, class_folders, folder_samples, read_mat, subfolders
from smmix_pl.data.io.images import Source, existing_folder
from smmix_pl.data.io.tar import images_in_tar
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError

WORDNET_IDS: list[str] = ImageNetInfo().label_names()
"""ImageNet's 1,000 classes in the order of their numbers."""

TARS = {
    "train": ("train.tar", "ILSVRC2012_img_train.tar"),
    "val": ("val.tar", "ILSVRC2012_img_val.tar"),
}
DEVKIT = Path("ILSVRC2012_devkit_t12/data")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


class ImageNet(FileData):
    """ImageNet-1k (Russakovsky et al., 2015) in any of the layouts it comes in.

    ``root`` holds, for training, ``train/<class>/*.JPEG``, or ``ILSVRC2012_img_train.tar`` (the tar
    of tars) or ``train.tar`` (class folders) as they are. For validation it holds
    ``val/<class>/*.JPEG``, or the flat ``val/ILSVRC2012_val_*.JPEG`` or ``ILSVRC2012_img_val.tar``
    beside the unpacked devkit ``ILSVRC2012_devkit_t12``, or ``val.tar`` (class folders). One
    ``imagenet.tar`` of ``train/`` and ``val/`` will do as well.

    The 50,000 validation images are also the test set, as in every paper. Classes are the folders
    in ``train``, so a subset of ImageNet works as well; where they are all 1,000, the check knows
    how many images there have to be. Arguments: see `ImageData`.
    """

    whole_tar: ClassVar[str] = "imagenet.tar"

    def find_classes(self) -> list[str]:
        """The classes in words."""
        self.folders = self._find_folders()
        if self.sizes is None and self.folders == WORDNET_IDS:
            self.sizes = Sizes(1_281_167, 50_000, 50_000)
        return readable(self.folders)

    def samples(self, split: Split) -> Samples:
        """``train`` for train, ``val`` for validation and test."""
        part = "train" if split == "train" else "val"
        folder = self.root / part
        if folder.is_dir():
            if part == "val" and not subfolders(folder):
                files = sorted(str(path) for path in folder.iterdir() if _is_image(path.name))
                return self._by_devkit(list(files))
            return folder_samples(folder, self.folders)
        for name in TARS[part]:
            if (self.root / name).is_file():
                return self._in_tar(self.root / name)
        if (self.root / self.whole_tar).is_file():
            slices = images_in_tar(self.root / self.whole_tar)
            return self._by_folder([s for s in slices if part in PurePosixPath(s.name).parts])
        raise InputError(
            f"{self.root} has neither a folder {part}/ nor one of {', '.join(TARS[part])}, "
            f"{self.whole_tar}; point data.root at the folder that has"
        )

    def _find_folders(self) -> list[str]:
        """Names of the class folders, sorted: the order of the class numbers."""
        existing_folder(self.root)
        if (self.root / "train").is_dir():
            return class_folders(self.root / "train")
        if any((self.root / tar).is_file() for tar in (*TARS["train"], self.whole_tar)):
            return WORDNET_IDS
        raise InputError(
            f"{self.root} has no folder train/; point data.root at the folder that holds train/ "
            f"and val/, or {TARS['train'][1]}"
        )

    def _in_tar(self, tar: Path) -> Samples:
        slices = images_in_tar(tar)
        flat = slices and all("/" not in found.name for found in slices)
        return self._by_devkit(list(slices)) if flat else self._by_folder(list(slices))

    def _by_folder(self, sources: list[Source]) -> Samples:
        """Classes by the name of the folder that each image is in."""
        numbers = {name: number for number, name in enumerate(self.folders)}
        labeled: Samples = []
        for source in sources:
            folder = PurePosixPath(str(source).replace(":", "/")).parent.name
            if folder not in numbers:
                raise InputError(f"{source} is in no class folder known here; check the tar file")
            labeled.append((source, numbers[folder]))
        return labeled

    def _by_devkit(self, sources: list[Source]) -> Samples:
        """Classes of the flat validation images, by the devkit's list in the order of names."""
        truth = read_devkit(self.root)
        if len(truth) != len(sources):
            raise InputError(
                f"{self.root} has {len(sources)} flat validation images, but the devkit lists "
                f"{len(truth)}; unpack ILSVRC2012_img_val.tar again"
            )
        numbers = {name: number for number, name in enumerate(self.folders)}
        lost = sorted(set(truth) - set(numbers))
        if lost:
            raise InputError(
                f"{self.root} has flat validation images of class {lost[0]!r}, but no folder of it "
                "in train/; add it, or sort the images of your classes into val/<class>/"
            )
        return [(source, numbers[name]) for source, name in zip(sources, truth, strict=True)]


def read_devkit(root: Path) -> list[str]:
    """WordNet id of each validation image, in the order of their names.

    Raises:
        InputError: The unpacked devkit is missing.
    """
    meta, truth = root / DEVKIT / "meta.mat", root / DEVKIT / TRUTH
    if not truth.is_file():
        truth = root / TRUTH
    if not (meta.is_file() and truth.is_file()):
        raise InputError(
            f"{root} holds flat validation images, but not the devkit that says what they show; "
            f"unpack ILSVRC2012_devkit_t12.tar.gz there, or sort them into class folders"
        )
    synsets = read_mat(meta, "synsets")
    ids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    return [ids[int(line)] for line in truth.read_text().split()]


def readable(folders: list[str]) -> list[str]:
    """Names for class folders: WordNet ids in words, others as they are.

    Of two classes with the same words (ImageNet has two cranes), each keeps its id as well.
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


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)
