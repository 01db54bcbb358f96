"""MergeMix: keep the tokens that matter when similar tokens are merged (Jin et al., ICLR 2026)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive, probability
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask
from smmix_pl.mixing.mixup import Mixup


class MergeMix(Mixer):
    """Mix each batch by the tokens with the highest scores, or by Mixup.

    The target image keeps the tokens with the highest scores, the source image fills the others.
    The score is the attention that a token pays to the class token in the last block of a guide
    pass that merges similar tokens (ToMe), so that merged tokens stay together. Labels follow the
    area.

    As in the authors' code (Westlake-AI/openmixup, `mergemix.py`) with the settings of ImageNet,
    which do not rescale the mixing ratio. Three details differ. The code trains each batch twice,
    mixed by MergeMix and by Mixup, and adds the losses; its option `switch_off` alternates, as
    here. It pairs images at random. And it reads the scores by the places of the tokens after the
    last block, although they were computed before that block merged more of them.

    Args:
        switch_prob: Probability of MergeMix instead of Mixup, drawn once per batch, in [0, 1].
        mixup_alpha: Alpha of Mixup. Above 0.
        alpha: The target image keeps lam ~ Beta(alpha, alpha) of the tokens. Above 0.
    """

    readout = "merged"

    def __init__(
        self, switch_prob: float = 0.5, mixup_alpha: float = 0.8, alpha: float = 1.0
    ) -> None:
        self.switch_prob = probability("model.mixer.switch_prob", switch_prob)
        self.mixup = Mixup(positive("model.mixer.mixup_alpha", mixup_alpha))
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        lam = rng.beta(self.alpha, self.alpha)
        scores = model.guide(images).attention.flatten(1)
        kept = scores.argsort(dim=1, descending=True, stable=True)[:, : int(lam * scores.shape[1])]
        mask = torch.ones_like(scores, dtype=torch.bool).scatter(1, kept, False)
        mixed = mix_by_mask(images, labels, mask.unflatten(1, model.grid))
        return replace(mixed, notes={"branch": 1.0})
