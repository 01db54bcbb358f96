"""SUMix: labels by semantic distance, and a loss on uncertainty (Qin et al., ECCV 2024).

B batch, K classes.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.checks import in_range, positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, Prediction, Unmixed, blend_labels
from smmix_pl.mixing.cutmix import CutMix


class SUMix(Mixer):
    """Mix each batch by CutMix, and weight its labels by what the model sees in the mixed images.

    A second training pass sees the unmixed images. The label weight of an image is its area,
    reduced by the distance of its predicted probabilities from those of the mixed image. The second
    loss compares these distances, and the uncertainty of both images, with the labels. The
    uncertainty comes from a second classifier of the mean token, for which the token head is used.

    As in the authors' code (JinXins/SUMix, `cls_mixup_head.py`), whose distances are multiplied by
    the batch size. It averages the label weights over the batch, because its cross entropy does;
    here, each image has its own.

    Args:
        alpha: Alpha of CutMix. Above 0. The authors use 0.2 for CIFAR-100.
        uncertainty: Weight of the second loss.
    """

    def __init__(self, alpha: float = 0.2, uncertainty: float = 0.5) -> None:
        self.cutmix = CutMix(positive("model.mixer.alpha", alpha, "The paper uses 0.2"))
        in_range("model.mixer.uncertainty", uncertainty, 0, hint="The paper uses 0.5")
        self.uncertainty = uncertainty

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        mixed = self.cutmix(images, labels, model, rng)
        assert isinstance(mixed.lam, float), "CutMix has one box per batch"
        lam = mixed.lam

        def compare(of_mixed: Prediction, of_unmixed: Prediction) -> tuple[Tensor, Tensor]:
            weights, loss = semantic_uncertainty(of_mixed, of_unmixed, labels, lam)
            return blend_labels(labels, weights), self.uncertainty * loss

        return replace(mixed, unmixed=Unmixed(images, compare))


def semantic_uncertainty(
    of_mixed: Prediction, of_unmixed: Prediction, labels: Tensor, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute the label weight of each target image, and the loss on distances and uncertainty.

    Args:
        of_mixed: Logits of the mixed images.
        of_unmixed: Logits of the unmixed images.
        labels: Soft labels of the unmixed images, `(B, K)`.
        lam: Fraction of the target image.

    Returns:
        Weights `(B, 1)` without gradient, and the scalar loss.
    """
    classes = labels.argmax(dim=1, keepdim=True)
    distances = []
    with torch.no_grad():
        seen, own = of_mixed.logits.softmax(dim=1), of_unmixed.logits.softmax(dim=1)
        for probabilities, others in ((own, classes.flip(0)), (own.flip(0), classes)):
            probabilities = probabilities.scatter(1, others, 0.0)
            distance = F.normalize((seen - probabilities).softmax(dim=1), dim=1)
            distances.append(distance * len(labels))
    target, source = distances
    gap = source.gather(1, classes.flip(0)) - target.gather(1, classes)
    # lam a / (lam a + (1 - lam) b) with a, b = exp(-distance), which underflow in large batches
    odds = math.log(lam / (1.0 - lam)) if 0 < lam < 1 else math.copysign(math.inf, lam - 0.5)
    weights = torch.sigmoid(gap + odds)

    uncertain = F.normalize(of_unmixed.uncertainty_logits.softmax(dim=1), dim=1)
    of_mix = F.normalize(of_mixed.uncertainty_logits.softmax(dim=1), dim=1)
    of_target = F.cross_entropy((-(uncertain + of_mix + target)).exp(), labels)
    of_source = F.cross_entropy((-(uncertain.flip(0) + of_mix + source)).exp(), labels.flip(0))
    return weights, lam * of_target + (1.0 - lam) * of_source
