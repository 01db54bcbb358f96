"""ADE20K scene parsing."""

from functools import cached_property

from smmix_pl.data.base import Split
from smmix_pl.data.dense import DenseData, Pair, paired_files
from smmix_pl.data.io.file_lists import dataset_folder
from smmix_pl.data.io.images import reading_lists


class ADE20K(DenseData):
    """ADE20K's scene parsing benchmark (Zhou et al., 2017): 150 classes, 20,210 / 2,000 images.

    `root` holds `ADEChallengeData2016/`, the unpacked archive of the MIT Scene Parsing Benchmark.
    Mask value 0 (other objects) is ignored. Tests use the validation set, because the masks of the
    test set are not public. Arguments: see `DenseData`.
    """

    first_label = 1

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the 150 classes, from the owner's list."""
        folder = dataset_folder(self.root, "ADEChallengeData2016", flat="annotations")
        with reading_lists(self.root):
            rows = (folder / "objectInfo150.txt").read_text().splitlines()[1:]
            return [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]

    def pairs(self, split: Split) -> list[Pair]:
        """Return the official split."""
        folder = dataset_folder(self.root, "ADEChallengeData2016", flat="annotations")
        part = "training" if split == "train" else "validation"
        return paired_files(folder / "images" / part, folder / "annotations" / part)
