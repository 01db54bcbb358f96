"""Detection and instance segmentation of COCO, or of images with annotations in its format."""

from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from smmix_pl.checks import in_range, probability
from smmix_pl.data.base import SPLITS_OF_STAGE, BaseData, Split
from smmix_pl.data.coco_json import CocoFiles, CocoImage, read_coco
from smmix_pl.data.instances import Item, Target, moved, target_of
from smmix_pl.data.io.file_lists import counted
from smmix_pl.data.io.images import BadImage, to_rgb, transformed
from smmix_pl.data.io.packed import Packed
from smmix_pl.data.transforms import fill_color
from smmix_pl.errors import InputError


class COCO(BaseData):
    """COCO (Lin et al., 2014) with 80 classes, or your own images with annotations in its format.

    `root` holds a folder of images per split and one JSON file for each. Crowds and images without
    an object are excluded from training. In evaluation they count as COCO defines it, at the
    images' own size.

    Args:
        root: Folder of the dataset.
        image_size: Images are resized to fit into it, along either axis: the shorter side to the
            smaller number, unless the longer side then exceeds the larger one. One number is a
            square, which models with one token grid (DeiT) need.
        batch_size: Images per device and step.
        num_workers: Loader processes per device; `null` uses one per core, at most 8.
        mean: Channel means for normalization; `null` uses ImageNet's.
        std: Channel standard deviations for normalization; `null` uses ImageNet's.
        longest: Limit of the longer side, if it is below the larger number of `image_size`.
        shortest: Shorter sides of training images, of which one is drawn for each.
        scale_jitter: Range of a random factor, (min, max). Training images are then cropped or
            padded to `image_size` (large-scale jitter, Ghiasi et al., 2021).
        hflip: Probability of a horizontal flip.
        masks: Draw the masks, which `mask_rcnn` needs.
        train: Folder of the training images, relative to root.
        val: Folder of the validation images.
        test: Folder of the test images; `null` uses the validation images, because the annotations
            of COCO's test set are not public.
        annotations: JSON file of a split, relative to root. `{split}` stands for the name of the
            folder.
    """

    reads_root = True

    def __init__(
        self,
        root: str = "data",
        image_size: int | tuple[int, int] = (800, 1344),
        batch_size: int = 16,
        num_workers: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        longest: int | None = None,
        shortest: list[int] | None = None,
        scale_jitter: tuple[float, float] | None = None,
        hflip: float = 0.5,
        masks: bool = True,
        train: str = "train2017",
        val: str = "val2017",
        test: str | None = None,
        annotations: str = "annotations/instances_{split}.json",
    ) -> None:
        super().__init__(root, image_size, batch_size, num_workers, mean, std)
        short, long = sorted(self.image_size)
        if longest is not None:
            in_range("data.longest", longest, 1, long, "Images must fit into data.image_size")
        for side in shortest or ():
            in_range("data.shortest", side, 1, short, "Images must fit into data.image_size")
        if scale_jitter is not None:
            if not 0 < scale_jitter[0] <= scale_jitter[1] <= 10:
                raise InputError(
                    f"data.scale_jitter={list(scale_jitter)}: must satisfy 0 < min <= max <= 10."
                )
            if shortest:
                raise InputError(
                    "data.scale_jitter: draws the size of training images, as data.shortest does. "
                    "Remove one of them."
                )
        probability("data.hflip", hflip)
        self.longest, self.shortest = longest or long, shortest or [short]
        self.scale_jitter, self.hflip, self.masks = scale_jitter, hflip, masks
        folders = {"train": train, "val": val, "test": test or val}
        self.files = CocoFiles(self.root, folders, annotations)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the categories in the order of their ids."""
        return read_coco(self.files.json("val"))[0]

    def setup(self, stage: str) -> None:
        """Open the splits of a stage.

        Raises:
            InputError: Files are missing or invalid, or there are too few images.
        """
        if stage == "predict":
            raise InputError("data=COCO: predict is for classification. Use `smmix test`.")
        for split in SPLITS_OF_STAGE.get(stage, (stage,)):
            images = self.files.images(split, self.class_names)
            if self.masks:
                self._check_masks(split, images)
            if split == "train":
                images = self._with_objects(images)
            self._sets[split] = CocoImages(self, images, split)
            self._check_count(split, len(images))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalize on the device. Images keep their sizes."""
        images, targets = batch
        return self.normalized(images), targets

    def read(self, split: str, image: CocoImage) -> Item:
        """Return an image `(3, H, W)` uint8 and its target, without crowds in training.

        Raises:
            BadImage: The file cannot be read, or has another size than its entry in the JSON file.
        """
        file = str(self.files.file(split, image))
        pixels = transformed(file, lambda one: F.pil_to_tensor(to_rgb(one)))
        width, height = image.size
        if pixels.shape[1:] != (height, width):
            raise BadImage(
                f"{file}: has {pixels.shape[1]} x {pixels.shape[2]} pixels, but "
                f"{self.files.json(split)} lists it with {height} x {width}"
            )
        instances = image.objects if split == "train" else image.instances
        return pixels, target_of(instances, (height, width), self.masks)

    def train_item(self, image: torch.Tensor, target: Target) -> Item:
        """Return a randomly resized, cropped, and flipped image with its objects."""
        size = image.shape[-2:]
        flip = v2.RandomHorizontalFlip(self.hflip)
        if self.scale_jitter is None:
            short = self.shortest[int(torch.randint(len(self.shortest), ()))]
            return moved(image, target, v2.Resize(self._fitted(size, short)), flip)
        factor = float(torch.empty(()).uniform_(*self.scale_jitter))
        factor *= min(limit / own for limit, own in zip(self.image_size, size, strict=True))
        height, width = _scaled(size, factor)
        down, right = max(0, self.image_size[0] - height), max(0, self.image_size[1] - width)
        fill = {tv_tensors.Image: fill_color(self.mean), "others": 0}
        pad, crop = v2.Pad([0, 0, right, down], fill=fill), v2.RandomCrop(self.image_size)
        return moved(image, target, v2.Resize((height, width)), pad, crop, flip)

    def eval_item(self, image: torch.Tensor, target: Target) -> Item:
        """Return a resized image, and its target in pixels of the file with their `size`."""
        size = image.shape[-2:]
        resized = F.resize(image, list(self._fitted(size, min(self.image_size))))
        return resized, target | {"size": torch.tensor(size)}

    def _fitted(self, size: tuple[int, ...], short: int) -> tuple[int, int]:
        """Return (H, W) with a shorter side of `short`, if the longer one is within its limit."""
        return _scaled(size, min(short / min(size), self.longest / max(size)))

    def _with_objects(self, images: list[CocoImage]) -> list[CocoImage]:
        """Return the images that have an object, and print what is excluded."""
        found = [image for image in images if image.objects]
        crowds = sum(len(image.instances) - len(image.objects) for image in images)
        empty = len(images) - len(found)
        if crowds or empty:
            rank_zero_info(
                f"{self.files.json('train')}: {counted(crowds, 'crowd')} and "
                f"{counted(empty, 'image')} without an object excluded from training"
            )
        return found

    def _check_masks(self, split: str, images: list[CocoImage]) -> None:
        """Reject objects that have a box only."""
        for image in images:
            if not all(instance.segmentation for instance in image.instances):
                raise InputError(
                    f"{self.files.json(split)}: {image.name} has an object without mask. Set "
                    "data.masks=false and model.detector=retinanet, or add the mask."
                )


class CocoImages(Dataset[Item]):
    """Images and targets of one split, read on access."""

    def __init__(self, data: COCO, images: list[CocoImage], split: Split) -> None:
        self.images, self.read = Packed(images), partial(data.read, split)
        self.prepare = data.train_item if split == "train" else data.eval_item

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return self.prepare(*self.read(self.images[index]))


def _scaled(size: tuple[int, ...], factor: float) -> tuple[int, int]:
    height, width = size
    return max(1, round(height * factor)), max(1, round(width * factor))
