"""Images with a mask of class indices, for semantic segmentation."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from smmix_pl.checks import in_range, probability
from smmix_pl.data.base import SPLITS_OF_STAGE, BaseData, Split
from smmix_pl.data.color_distortion import distort_colors
from smmix_pl.data.io.file_lists import counted, image_files
from smmix_pl.data.io.images import BadImage, existing_folder, to_rgb, transformed
from smmix_pl.data.transforms import fill_color
from smmix_pl.errors import InputError

IGNORED = 255
"""Value of mask pixels without a class."""
INDEXED = ("L", "P", "1")
"""Pillow's modes of masks that hold indices."""
Pair = tuple[Path, Path]


class DenseData(BaseData):
    """Images and masks of one dataset. A subclass implements `class_names` and `pairs`.

    Training images are resized by a random factor, cropped to `image_size`, flipped, and distorted
    in color, as in mmsegmentation. Evaluation images keep their aspect ratio, and masks their size.

    Args:
        root: Folder of the dataset.
        image_size: Height and width of training crops in pixels, or one number for both.
        batch_size: Images per device and step. Evaluation takes one image at a time.
        num_workers: Loader processes per device; `null` uses one per core, at most 8.
        mean: Channel means for normalization; `null` uses ImageNet's.
        std: Channel standard deviations for normalization; `null` uses ImageNet's.
        resize: Shorter side of images before the random factor, in pixels, with the longer side
            limited to four times as much; `null` keeps the size.
        scale: Range of the random factor, (min, max).
        hflip: Probability of a horizontal flip.
        color_distortion: Distort brightness, contrast, saturation, and hue at random.
        max_class_ratio: Crop again, up to 10 times, while one class has more than this fraction of
            the labeled pixels.
        ignored: Further mask values to ignore, besides 255.
    """

    reads_root = True
    ignored: tuple[int, ...] = ()
    first_label = 0
    """Mask value of class 0. Lower values are ignored."""

    def __init__(
        self,
        root: str = "data",
        image_size: int | tuple[int, int] = 512,
        batch_size: int = 16,
        num_workers: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        resize: int | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        hflip: float = 0.5,
        color_distortion: bool = True,
        max_class_ratio: float = 0.75,
        ignored: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(root, image_size, batch_size, num_workers, mean, std)
        if not 0 < scale[0] <= scale[1] <= 100:
            raise InputError(f"data.scale={list(scale)}: must satisfy 0 < min <= max <= 100.")
        if resize is not None:
            in_range("data.resize", resize, 1, 4096, "Set null to keep the size")
        probability("data.hflip", hflip)
        in_range("data.max_class_ratio", max_class_ratio, 0.01, 1, "1 accepts every crop")
        self.resize, self.scale, self.hflip = resize, scale, hflip
        self.color_distortion = color_distortion
        self.max_class_ratio = max_class_ratio
        self.ignored = self.ignored if ignored is None else tuple(ignored)

    @abstractmethod
    def pairs(self, split: Split) -> list[Pair]:
        """Return the image and the mask file of each image of a split."""

    def setup(self, stage: str) -> None:
        """Open the splits of a stage.

        Raises:
            InputError: Files are missing, or there are too few images.
        """
        if stage == "predict":
            raise InputError(
                f"data={type(self).__name__}: predict is for classification. Use `smmix test`."
            )
        for split in SPLITS_OF_STAGE.get(stage, (stage,)):
            pairs = self.pairs(split)
            for image, mask in pairs:
                if not mask.is_file():
                    raise InputError(f"{mask}: the mask of {image} is missing. Add it.")
            self._sets[split] = Pairs(self, pairs, split == "train")
            self._check_count(split, len(pairs))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalize on the device. Training crops and their masks are stacked."""
        images, masks = batch
        images = self.normalized(images)
        if self.trainer is not None and self.trainer.training:
            return torch.stack(images), torch.stack(masks)
        return images, masks

    def read(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Return an image `(3, H, W)` uint8 and its mask of class indices `(H, W)`.

        Raises:
            BadImage: A file cannot be read, or they do not fit together.
        """
        image = transformed(str(pair[0]), lambda one: F.pil_to_tensor(to_rgb(one)))
        mask = transformed(str(pair[1]), _indices).long()
        if mask.shape != image.shape[1:]:
            height, width = mask.shape
            raise BadImage(
                f"{pair[1]}: has {height} x {width} pixels, but its image {pair[0]} has "
                f"{image.shape[1]} x {image.shape[2]}"
            )
        lost = (mask < self.first_label) | (mask == IGNORED)
        for value in self.ignored:
            lost |= mask == value
        classes = torch.where(lost, IGNORED, mask - self.first_label)
        wrong = (classes >= self.num_classes) & ~lost
        if bool(wrong.any()):
            raise BadImage(
                f"{pair[1]}: {counted(int(wrong.sum()), 'pixel')} with value "
                f"{int(mask[wrong][0])}, which is none of the {self.num_classes} classes"
            )
        return image, classes

    def train_crop(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return a random crop of an image and its mask."""
        factor = float(torch.empty(()).uniform_(*self.scale))
        short = self.resize or min(mask.shape)
        both = _resized(image, max(1, round(factor * short)), mask)
        both = _padded(*both, self.image_size, fill_color(self.mean))
        for _ in range(10):
            cropped = v2.RandomCrop(self.image_size)(*both)
            counts = cropped[1][cropped[1] != IGNORED].bincount()
            if len(counts) and counts.max() <= self.max_class_ratio * counts.sum():
                break
        flipped = v2.RandomHorizontalFlip(self.hflip)(*cropped)
        image, mask = (one.as_subclass(Tensor) for one in flipped)
        return distort_colors(image) if self.color_distortion else image, mask

    def eval_image(self, image: Tensor) -> Tensor:
        """Return an image at the size that it is evaluated at."""
        if self.resize is None:
            return image
        return F.resize(image, [self.resize], max_size=4 * self.resize)


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks of one split, read on access."""

    def __init__(self, data: DenseData, pairs: list[Pair], training: bool) -> None:
        self.data, self.pairs, self.training = data, pairs, training

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.data.read(self.pairs[index])
        if self.training:
            return self.data.train_crop(image, mask)
        return self.data.eval_image(image), mask


def paired_files(images: Path, masks: Path) -> list[Pair]:
    """Return the images of a folder, each with the mask of the same name and the suffix .png.

    Raises:
        InputError: A folder is missing.
    """
    found, _ = image_files(existing_folder(images))
    existing_folder(masks)
    return [(Path(one), masks / f"{Path(one).stem}.png") for one in found]


def _indices(mask: Image.Image) -> Tensor:
    if mask.mode not in INDEXED:
        raise ValueError(f"a mask needs class indices, but its pixels have mode {mask.mode}")
    return torch.from_numpy(np.array(mask, dtype=np.uint8))


def _resized(image: Tensor, short: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Resize the shorter side, with nearest neighbors for the mask."""
    size, longest = [short], 4 * short
    resized = F.resize(tv_tensors.Image(image), size, max_size=longest)
    return resized, F.resize(tv_tensors.Mask(mask), size, max_size=longest)


def _padded(
    image: Tensor, mask: Tensor, size: tuple[int, int], color: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Pad to at least a size at the bottom and right, with the mean color and ignored pixels."""
    down, right = (max(0, side - own) for side, own in zip(size, mask.shape, strict=True))
    padding = [0, 0, right, down]
    return F.pad(image, padding, fill=list(color)), F.pad(mask, padding, fill=IGNORED)
