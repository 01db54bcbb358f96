"""Mixup or CutMix, drawn once per batch: the DeiT recipe (Touvron et al., 2021)."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from smmix_pl.checks import positive, probability
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.mixup import Mixup


class MixupCutMix(Mixer):
    """Mix each batch by CutMix or by Mixup.

    Equals timm's `Mixup` in its `batch` mode, which DeiT and most vision transformers use.

    Args:
        mixup_alpha: Alpha of Mixup. Above 0.
        cutmix_alpha: Alpha of CutMix. Above 0.
        switch_prob: Probability of CutMix instead of Mixup, drawn once per batch, in [0, 1].
    """

    def __init__(
        self, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, switch_prob: float = 0.5
    ) -> None:
        self.mixup = Mixup(positive("model.mixer.mixup_alpha", mixup_alpha))
        self.cutmix = CutMix(positive("model.mixer.cutmix_alpha", cutmix_alpha))
        self.switch_prob = probability("model.mixer.switch_prob", switch_prob)

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        branch = rng.random() < self.switch_prob
        mixer = self.cutmix if branch else self.mixup
        return replace(mixer(images, labels, model, rng), notes={"branch": float(branch)})
