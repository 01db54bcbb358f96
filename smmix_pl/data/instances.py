"""Boxes, classes, and masks of the objects in an image, and what moves them with it.

Shapes: n objects, H W pixels of the image.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from smmix_pl.data.coco_json import Instance
from smmix_pl.metrics.average_precision import coco_masks

Target = dict[str, Tensor]
"""`boxes` `(n, 4)` with left, top, right, and bottom edges in pixels, `labels` `(n,)`, `iscrowd`
`(n,)`, `area` `(n,)` in pixels, and `masks` `(n, H, W)` uint8, if masks are used."""
Item = tuple[Tensor, Target]


def target_of(instances: Sequence[Instance], size: tuple[int, int], masks: bool) -> Target:
    """Return the instances of an image as tensors.

    Args:
        instances: Objects and crowds.
        size: (H, W) of the image.
        masks: Draw the masks.
    """
    target = {
        "boxes": torch.tensor([one.box for one in instances]).reshape(-1, 4),
        "labels": torch.tensor([one.category for one in instances], dtype=torch.long),
        "iscrowd": torch.tensor([one.is_crowd for one in instances], dtype=torch.long),
        "area": torch.tensor([one.area for one in instances]),
    }
    if masks:
        drawn = [_mask(one, size) for one in instances]
        target["masks"] = torch.from_numpy(np.array(drawn, dtype=np.uint8)).reshape(-1, *size)
    return target


def moved(image: Tensor, target: Target, *steps: v2.Transform) -> Item:
    """Apply transforms of torchvision to an image and its objects.

    Boxes are clipped to the image. Objects with less than a pixel in a direction are dropped.

    Args:
        image: `(3, H, W)`.
        target: Objects of the image.
        *steps: Transforms.
    """
    size = (image.shape[-2], image.shape[-1])
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
    target = target | {"boxes": boxes}
    if "masks" in target:
        target["masks"] = tv_tensors.Mask(target["masks"])
    last = (v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(labels_getter=_per_object))
    image, target = v2.Compose([*steps, *last])(tv_tensors.Image(image), target)
    return image.as_subclass(Tensor), {k: v.as_subclass(Tensor) for k, v in target.items()}


def _per_object(item: Item) -> list[Tensor]:
    """Return what is dropped with a box, masks aside, which torchvision recognizes."""
    return [item[1][name] for name in ("labels", "iscrowd", "area")]


def _mask(instance: Instance, size: tuple[int, int]) -> np.ndarray:
    """Return a mask `(H, W)` as COCO's own functions draw it."""
    functions = coco_masks()
    runs = functions.frPyObjects(instance.segmentation, *size)
    mask: np.ndarray = functions.decode(functions.merge(runs) if isinstance(runs, list) else runs)
    return mask
