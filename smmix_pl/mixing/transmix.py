"""TransMix: labels follow the attention of the class token (Chen et al., CVPR 2022)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive, probability
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask
from smmix_pl.mixing.mixup import Mixup


class TransMix(Mixer):
    """Mix each batch by CutMix with attentive labels, or by Mixup.

    The images are those of CutMix. The label weight of the target image is the mean of two
    fractions: its area, and the class token's attention that falls on it. The attention is that of
    the last block in the training pass over the mixed images.

    As in the authors' code (Beckschen/TransMix, `transmix.py`) and section 4.1 of the paper, whose
    equation uses the attention fraction alone. The box is mapped to tokens by nearest neighbors,
    and no gradient flows through the attention.

    Args:
        switch_prob: Probability of CutMix instead of Mixup, drawn once per batch, in [0, 1]. The
            authors' config for DeiT-B sets 0.8. Their config for DeiT-S sets it under a name that
            their parser ignores, which leaves 0.5.
        mixup_alpha: Alpha of Mixup. Above 0.
        cutmix_alpha: Alpha of CutMix. Above 0.
    """

    readout = "class"

    def __init__(
        self, switch_prob: float = 0.5, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0
    ) -> None:
        self.switch_prob = probability("model.mixer.switch_prob", switch_prob)
        self.mixup = Mixup(positive("model.mixer.mixup_alpha", mixup_alpha))
        self.cutmix = CutMix(positive("model.mixer.cutmix_alpha", cutmix_alpha))

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        height, width = images.shape[-2:]
        rows, columns = self.cutmix.box(height, width, rng)
        mask = torch.zeros(1, height, width, dtype=torch.bool, device=images.device)
        mask[:, rows, columns] = True
        mixed = mix_by_mask(images, labels, mask)

        def attentive_labels(attention: Tensor, logits: Tensor) -> Tensor:
            return blend_labels(labels, (mixed.lam + attended_fraction(attention, mask)) / 2)

        return replace(mixed, attentive_labels=attentive_labels, notes={"branch": 1.0})
