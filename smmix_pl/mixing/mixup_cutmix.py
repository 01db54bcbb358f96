"""Mixup or CutMix, one of them for each batch: the DeiT recipe (Touvron et al., 2021)."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from smmix_pl.checks import probability
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.mixup import Mixup


class MixupCutMix(Mixer):
    """Each batch: CutMix, else Mixup.

    As timm's ``Mixup`` in its ``batch`` mode, which DeiT and most vision transformers train with.

    Args:
        mixup_alpha: Mixup's alpha, above 0.
        cutmix_alpha: CutMix's alpha, above 0.
        switch_prob: Probability of CutMix rather than Mixup, drawn once per batch; in [0, 1].
    """

    def __init__(
        self, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, switch_prob: float = 0.5
    ) -> None:
        self.mixup = Mixup(mixup_alpha)
        self.cutmix = CutMix(cutmix_alpha)
        self.switch_prob = probability("MixupCutMix's switch_prob", switch_prob)

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        branch = rng.random() < self.switch_prob
        mixer = self.cutmix if branch else self.mixup
        return replace(mixer(images, labels, model, rng), notes={"branch": float(branch)})
