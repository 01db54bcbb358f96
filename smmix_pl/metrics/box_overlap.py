"""Accuracy of the boxes that a map over the tokens predicts.

Shapes: G_h G_w token grid, H W pixels, n objects.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchvision.ops import box_iou

from smmix_pl.metrics.mask_overlap import mass_mask

IOUS = (0.3, 0.5, 0.7)
"""Overlaps at which MaxBoxAccV2 counts a box as correct."""
MAX_SIDE = 224
"""Longest side of the score maps whose boxes MaxBoxAccV2 compares, as in its protocol."""


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
