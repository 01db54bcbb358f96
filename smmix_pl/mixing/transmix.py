"""TransMix: labels follow where the class token looks (Chen et al., CVPR 2022)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import probability
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask
from smmix_pl.mixing.mixup import Mixup


class TransMix(Mixer):
    """Each batch: CutMix with attentive labels, else Mixup.

    The images are CutMix's. Their label share is the mean of the area share and of the share of the
    class token's attention, in the last block of the mixed images' own training pass, that falls on
    the target image. As in the authors' code (Beckschen/TransMix, `transmix.py`): the paper takes
    the attention share alone, the code the mean of both; the box comes to the tokens by nearest
    neighbors; no gradient flows through the attention.

    Args:
        switch_prob: Probability of CutMix rather than Mixup, drawn once per batch; in [0, 1]. The
            authors' config for DeiT-B sets 0.8; the one for DeiT-S means to, under a name that
            their parser does not read, which leaves 0.5.
        mixup_alpha: Mixup's alpha, above 0.
        cutmix_alpha: CutMix's alpha, above 0.
    """

    readout = "class"

    def __init__(
        self, switch_prob: float = 0.5, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0
    ) -> None:
        self.switch_prob = probability("TransMix's switch_prob", switch_prob)
        self.mixup = Mixup(mixup_alpha)
        self.cutmix = CutMix(cutmix_alpha)

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        height, width = images.shape[-2:]
        rows, columns = self.cutmix.box(height, width, rng)
        mask = torch.zeros(1, height, width, dtype=torch.bool, device=images.device)
        mask[:, rows, columns] = True
        mixed = mix_by_mask(images, labels, mask)

        def attentive_labels(attention: Tensor, logits: Tensor) -> Tensor:
            return blend(labels, (mixed.lam + attended_fraction(attention, mask)) / 2)

        return replace(mixed, attentive_labels=attentive_labels, notes={"branch": 1.0})
