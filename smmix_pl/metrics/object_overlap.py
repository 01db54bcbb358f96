"""Where a map over the tokens finds objects: Jaccard index of masks, accuracy of boxes.

Shapes: h heads, G_h G_w token grid, H W pixels, n objects.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchvision.ops import box_iou

IOUS = (0.3, 0.5, 0.7)
"""Overlaps at which MaxBoxAccV2 counts a box as correct."""
MAX_SIDE = 224
"""Longest side of the score maps whose boxes MaxBoxAccV2 compares, as in its protocol."""


def mass_mask(maps: Tensor, mass: float) -> Tensor:
    """Select the tokens of the largest values that together hold a fraction of the sum.

    Args:
        maps: Non-negative, `(..., G_h, G_w)`.
        mass: The fraction, in (0, 1].

    Returns:
        Bool tensor of the same shape.
    """
    values, order = maps.flatten(-2).sort(dim=-1)
    held = values.cumsum(dim=-1) / values.sum(dim=-1, keepdim=True)
    return (held > 1 - mass).gather(-1, order.argsort(dim=-1)).view_as(maps)


def class_jaccards(masks: Tensor, truth: Tensor, void: int) -> Tensor:
    """Compute the Jaccard index of masks with each class of an image. Void pixels do not count.

    Args:
        masks: `(h, H, W)` bool.
        truth: Class of each pixel, `(H, W)`; 0 is background.
        void: Value of pixels without a label.

    Returns:
        `(classes, h)`, with a row for each class in the image.
    """
    counted = truth != void
    found = masks & counted
    rows = []
    for number in truth[counted].unique().tolist():
        if number:
            object_ = truth == number
            both, either = (found & object_).sum((1, 2)), (found | object_).sum((1, 2))
            rows.append(both / either)
    return torch.stack(rows) if rows else found.new_zeros((0, len(found)), dtype=torch.float32)


def largest_box(mask: Tensor) -> Tensor:
    """Return the box of the largest connected region of tokens, `(4,)` in tokens.

    Args:
        mask: `(G_h, G_w)` bool with at least one true token. Tokens are neighbors at their sides.
    """
    regions, _ = label(mask.cpu().numpy())
    rows, columns = find_objects(regions)[np.bincount(regions.ravel())[1:].argmax()]
    return torch.tensor((columns.start, rows.start, columns.stop, rows.stop))


def best_overlaps(score: Tensor, boxes: Tensor, thresholds: int) -> Tensor:
    """Compute how well the regions above each threshold of a map overlap the objects.

    Args:
        score: Map scaled to [0, 1], `(H, W)`.
        boxes: True boxes in pixels of the map, `(n, 4)`.
        thresholds: Number of thresholds, t / thresholds for t = 0, 1, ...

    Returns:
        The best IoU of any region with any object at each threshold, `(thresholds,)`.
    """
    levels = np.arange(thresholds, dtype=np.float32) / thresholds
    above = score.cpu().numpy() > levels[:, None, None]
    neighbors = np.zeros((3, 3, 3), dtype=int)
    neighbors[1] = 1  # regions touch at sides and corners, within one threshold
    regions, _ = label(above, neighbors)
    places = find_objects(regions)
    best = torch.zeros(thresholds)
    if places and len(boxes):
        sides = [(x.start, y.start, x.stop, y.stop) for _, y, x in places]
        found = torch.tensor(sides, dtype=torch.float32)
        level = torch.tensor([place[0].start for place in places])
        overlap = box_iou(found, boxes.cpu().float()).max(dim=1).values
        best.scatter_reduce_(0, level, overlap, "amax")
    return best


class MaskJaccard(Metric):
    """Jaccard index of attention with segmentation masks, a mean over classes, then over images.

    `best_head` takes the best head of each class, as IPViT does (Naseer et al., 2021): the answer
    selects the head. `mean_map` is that of the map averaged over heads. Differences from IPViT's
    code: void pixels are excluded, and masks are resized by nearest neighbor.

    Args:
        mass: Fraction of the map that the selected tokens hold.
        void: Mask value of pixels without a label.
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, mass: float, void: int) -> None:
        super().__init__()
        self.mass, self.void = mass, void
        self.add_state("total", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, maps: Tensor, truth: Tensor) -> None:
        """Add an image. One without a labeled object does not count.

        Args:
            maps: Map of each head, `(h, G_h, G_w)`.
            truth: Class of each pixel, `(H, W)`.
        """
        both = torch.cat((maps, maps.mean(dim=0, keepdim=True)))
        tokens = mass_mask(both, self.mass)
        masks = F.interpolate(tokens[None].float(), truth.shape, mode="nearest")[0] > 0
        jaccards = class_jaccards(masks, truth.to(masks.device), self.void)
        if len(jaccards):
            found = (jaccards[:, :-1].max(dim=1).values.mean(), jaccards[:, -1].mean())
            self.total += torch.stack(found).to(self.total)
            self.images += 1

    def compute(self) -> dict[str, float]:
        """Return `best_head` and `mean_map`, NaN without images."""
        best_head, mean_map = (self.total / self.images).tolist()
        return {"best_head": best_head, "mean_map": mean_map}


class BoxScores(NamedTuple):
    """Accuracy of boxes.

    Attributes:
        corloc: Fraction of images whose box overlaps an object by at least one half.
        max_box_acc: Best accuracy over the thresholds by IoU.
    """

    corloc: float
    max_box_acc: dict[float, float]

    @property
    def max_box_acc_v2(self) -> float:
        """Mean over the IoUs."""
        return sum(self.max_box_acc.values()) / len(self.max_box_acc)


class BoxAccuracy(Metric):
    """CorLoc and MaxBoxAccV2 of maps over the tokens.

    CorLoc: one box per image, around the largest connected region of the tokens that hold `mass` of
    the map, is correct if its IoU with any object is at least 0.5. This is the baseline DINO-seg of
    LOST (Simeoni et al., 2021), but of the mean over heads. MaxBoxAccV2 (Choe et al., 2020): boxes
    around all regions above a threshold of the map; the threshold with the best accuracy over all
    images counts, at each IoU of 0.3, 0.5, and 0.7. Regions are connected components, so holes give
    no boxes of their own.

    Args:
        mass: Fraction of the map that the tokens of CorLoc's box hold.
        thresholds: Number of thresholds of MaxBoxAccV2.
    """

    full_state_update = False
    located: Tensor
    correct: Tensor
    images: Tensor

    def __init__(self, mass: float, thresholds: int) -> None:
        super().__init__()
        self.mass, self.thresholds = mass, thresholds
        correct = torch.zeros(len(IOUS), thresholds, dtype=torch.float64)
        self.add_state("located", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("correct", correct, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attention: Tensor, boxes: Tensor, size: tuple[int, int]) -> None:
        """Add an image. One without objects does not count.

        Args:
            attention: `(G_h, G_w)`.
            boxes: True boxes in pixels, `(n, 4)`.
            size: (H, W) of the image.
        """
        if not len(boxes):
            return
        attention = attention.float().cpu()
        self.images += 1
        box = predicted_box(attention, self.mass, size)
        self.located += (box_iou(box[None], boxes.cpu()) >= 0.5).any()
        scale = min(1, MAX_SIDE / max(size))
        shape = [round(side * scale) for side in size]
        score = F.interpolate(attention[None, None], shape, mode="bicubic")[0, 0]
        score = (score - score.min()) / (score.max() - score.min()).clamp(min=1e-12)
        best = best_overlaps(score, boxes.cpu() * scale, self.thresholds)
        self.correct += (best >= torch.tensor(IOUS)[:, None]).to(self.correct)

    def compute(self) -> BoxScores:
        """Return the accuracies, NaN without images."""
        best = self.correct.max(dim=1).values / self.images
        max_box_acc = dict(zip(IOUS, best.tolist(), strict=True))
        return BoxScores(float(self.located / self.images), max_box_acc)


def predicted_box(attention: Tensor, mass: float, size: tuple[int, int]) -> Tensor:
    """Return CorLoc's box in pixels, `(4,)`.

    Args:
        attention: `(G_h, G_w)`.
        mass: Fraction of the map that its tokens hold.
        size: (H, W) of the image.
    """
    scale = torch.tensor((size[1] / attention.shape[1], size[0] / attention.shape[0])).repeat(2)
    return largest_box(mass_mask(attention, mass)) * scale
