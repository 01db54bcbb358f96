"""Scores of semantic segmentation, from a confusion matrix of pixels."""

from typing import NamedTuple

import torch
from torch import Tensor


class SegmentationScores(NamedTuple):
    """Scores in [0, 1].

    Attributes:
        miou: Mean intersection over union of the classes that occur in truth or prediction.
        mean_accuracy: Mean accuracy of the classes that occur in truth.
        pixel_accuracy: Fraction of labeled pixels that are right.
        iou: Intersection over union of each class, `(K,)`; NaN if it does not occur.
    """

    miou: Tensor
    mean_accuracy: Tensor
    pixel_accuracy: Tensor
    iou: Tensor


def segmentation_scores(confusion: Tensor) -> SegmentationScores:
    """Return the scores of a confusion matrix `(K, K)` of pixel counts, true classes first."""
    # A device without float64 cannot count more than 2^24 pixels in floating point
    counts = confusion.cpu().double()
    right, true, predicted = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
    iou = right / (true + predicted - right)  # 0 / 0 is NaN
    scores = (iou.nanmean(), (right / true).nanmean(), right.sum() / counts.sum(), iou)
    return SegmentationScores(*(torch.as_tensor(score).float() for score in scores))
