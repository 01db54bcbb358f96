"""torchvision's detectors on the maps of a backbone.

Shapes: B batch, H W pixels, C_i channels of level i, n detections.
"""

from collections import OrderedDict
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import initLevelMapper

from smmix_pl.checks import in_range, one_of
from smmix_pl.downstream.pyramid import FeaturePyramid
from smmix_pl.errors import InputError

DETECTORS: dict[str, Any] = {"mask_rcnn": MaskRCNN, "retinanet": RetinaNet}
FIRST_LEVEL = {"mask_rcnn": 0, "retinanet": 1}
"""RetinaNet reads maps from stride 8 on."""
FIRST_CLASS = {"mask_rcnn": 1, "retinanet": 0}
"""Class 0 of Mask R-CNN is the background."""
WIDTH = 256
"""Channels of the feature pyramid network."""
Detections = dict[str, Tensor]
"""`boxes` `(n, 4)`, `scores`, `labels`, and, of Mask R-CNN, `masks` `(n, 1, H, W)` in [0, 1]."""


def create_detector(
    name: str, pyramid: FeaturePyramid, classes: int, size: tuple[int, int], args: dict[str, Any]
) -> Any:
    """Return a detector with torchvision's interface, for normalized images.

    Args:
        name: `mask_rcnn` or `retinanet`.
        pyramid: Backbone. It does not become a submodule.
        classes: Number of classes.
        size: Size that images are padded to if the backbone has one token grid.
        args: Numbers that torchvision's class takes.

    Raises:
        InputError: An argument is not one of the detector.
    """
    kind = DETECTORS[name]
    check_arguments(kind, args)
    if pyramid.plain and size[0] != size[1]:
        raise InputError(
            f"data.image_size={size[0]} x {size[1]}: must be a square for a backbone with one "
            "token grid, because images are padded to it. Use one number, such as 1024."
        )
    levels = Levels(pyramid.__call__, pyramid.channels, FIRST_LEVEL[name])
    if name == "retinanet":
        args = {"detections_per_img": 100} | args  # as COCO evaluates, and the other detector
    detector = kind(levels, classes + FIRST_CLASS[name], **args)
    detector.transform = Batching(pyramid.multiple, size if pyramid.plain else (0, 0))
    if name == "mask_rcnn":
        for pool in (detector.roi_heads.box_roi_pool, detector.roi_heads.mask_roi_pool):
            # torchvision infers them from the first images, wrongly if these are padded
            pool.scales = [1 / stride for stride in pyramid.strides]
            pool.map_levels = initLevelMapper(2, 5)
    return detector


def check_arguments(kind: Any, args: dict[str, Any]) -> None:
    """Check arguments of a detector, of which torchvision ignores unknown ones.

    Raises:
        InputError: An argument is unknown or not a number.
    """
    known = {
        name
        for name, parameter in signature(kind).parameters.items()
        if isinstance(parameter.default, int | float) and name not in ("min_size", "max_size")
    }
    for name, value in args.items():
        one_of("model.detector_args", name, known)
        in_range(f"model.detector_args.{name}", value, 0)


class Levels(nn.Module):
    """Feature pyramid network on the maps of a backbone: what torchvision calls the backbone.

    Args:
        maps: Returns maps of images. It is not a submodule, because the backbone belongs to the
            LightningModule.
        channels: C_i of the maps.
        first: First level that is read.

    Attributes:
        out_channels: Channels of each level.
        autocast: Precision of the forward pass.
    """

    def __init__(
        self, maps: Callable[[Tensor], list[Tensor]], channels: list[int], first: int
    ) -> None:
        super().__init__()
        self.maps, self.first, self.out_channels = maps, first, WIDTH
        last = LastLevelP6P7(channels[-1], WIDTH) if first else LastLevelMaxPool()
        self.network = FeaturePyramidNetwork(channels[first:], WIDTH, last)
        self.autocast: Any = torch.autocast("cpu", enabled=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return levels `(B, WIDTH, H / stride, W / stride)` in the dtype of the images."""
        with self.autocast:
            maps = self.maps(images)[self.first :]
            levels = self.network(OrderedDict((str(n), one) for n, one in enumerate(maps)))
        return {name: level.to(images.dtype) for name, level in levels.items()}


class Batching(GeneralizedRCNNTransform):
    """Pads images into a batch. The data module has resized and normalized them.

    Args:
        multiple: Sides of a batch are multiples of this.
        smallest: (height, width) that a batch has at least.
    """

    def __init__(self, multiple: int, smallest: tuple[int, int]) -> None:
        super().__init__(1, 1, image_mean=[0.0], image_std=[1.0], size_divisible=multiple)
        self.smallest = smallest

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Return image and target unchanged."""
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Return the batch `(B, 3, H, W)`, padded at the bottom and the right."""
        frame = images[0].new_zeros(3, *self.smallest)
        batch: Tensor = super().batch_images([*images, frame], size_divisible)
        return batch[:-1]

    def postprocess(
        self, result: list[Detections], image_shapes: Any, original_image_sizes: Any
    ) -> list[Detections]:
        """Return detections unchanged, in pixels of the resized images."""
        return result

    def resized(
        self, found: Detections, size: tuple[int, int], final: tuple[int, int]
    ) -> Detections:
        """Return the detections of an image of one size in pixels of another size."""
        [scaled] = super().postprocess([dict(found)], [size], [final])
        detections: Detections = scaled
        return detections
