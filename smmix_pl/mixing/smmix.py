"""SMMix: the model under training composes its own mixed images (Chen et al., ICCV 2023).

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w tokens, K classes, r window side.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import one_of, probability
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, Regions, blend
from smmix_pl.mixing.mixup import Mixup
from smmix_pl.mixing.regions import (
    Side,
    least_attended,
    most_attended,
    paste,
    random_corners,
    side_range,
    window_mask,
)


class SMMix(Mixer):
    """Each batch: max-min region mixing by the model's own attention, else Mixup.

    The region of the source image that the model attends to most is pasted over the region of the
    target image that it attends to least. The motivating pass that finds them also gives the
    consistency target, and the pasted region the fine-grained labels. As in the authors' code
    (`SMMix.__call__`), which counts lam from the target image: 1 - lambda of the paper.

    Args:
        switch_prob: Probability of SMMix rather than Mixup, drawn once per batch; in [0, 1].
        mixup_alpha: Mixup's alpha, above 0.
        min_side_ratio: Shortest side of the region as a share of the token grid's side; in (0, 1).
        max_side_ratio: Longest side, likewise.
        region_choice: ``max-min`` by attention, or ``random``, which places both regions at random
            (ablation).
        per_sample_side: Draw a region side for each image instead of one for the batch (not in the
            paper).
        fine_grained: Carry what the fine-grained label loss needs.
        consistency: Carry what the consistency loss needs.
        guide_prob: Share of the SMMix batches that the model motivates, in [0, 1]; the others
            take random regions without consistency, at the price of CutMix (not in the paper).
    """

    def __init__(
        self,
        switch_prob: float = 0.5,
        mixup_alpha: float = 0.8,
        min_side_ratio: float = 0.25,
        max_side_ratio: float = 0.75,
        region_choice: Literal["max-min", "random"] = "max-min",
        per_sample_side: bool = False,
        fine_grained: bool = True,
        consistency: bool = True,
        guide_prob: float = 1.0,
    ) -> None:
        if not 0 < min_side_ratio <= max_side_ratio < 1:
            raise InputError(
                f"SMMix's region ratios are min_side_ratio {min_side_ratio} and max_side_ratio "
                f"{max_side_ratio}; they must satisfy 0 < min <= max < 1 (the paper: 0.25, 0.75)"
            )
        one_of("SMMix's region_choice", region_choice, ("max-min", "random"))
        self.mixup = Mixup(mixup_alpha)
        self.switch_prob = probability("SMMix's switch_prob", switch_prob)
        self.min_side_ratio = min_side_ratio
        self.max_side_ratio = max_side_ratio
        self.region_choice = region_choice
        self.per_sample_side = per_sample_side
        self.fine_grained = fine_grained
        self.consistency = self.reads_logits = consistency
        self.guide_prob = probability("SMMix's guide_prob", guide_prob)

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        low, high = side_range(model.grid, self.min_side_ratio, self.max_side_ratio)
        if self.per_sample_side:
            sides = torch.from_numpy(rng.integers(low, high, size=len(images), endpoint=True))
            return self.mix_regions(images, labels, model, sides, rng)
        return self.mix_regions(images, labels, model, int(rng.integers(low, high + 1)), rng)

    def mix_regions(
        self,
        images: Tensor,
        labels: Tensor,
        model: GuideModel,
        side: Side,
        rng: np.random.Generator,
    ) -> Mixed:
        """The SMMix branch at a given region side.

        Args:
            images: ``(B, C, H, W)``; left unchanged.
            labels: Soft labels, ``(B, K)``; left unchanged.
            model: The model under training.
            side: Region side in tokens, one for the batch or a CPU tensor ``(B,)``.
            rng: Places random regions; max-min regions of every batch draw nothing.
        """
        batch, grid = len(images), model.grid
        guided = self.guide_prob == 1 or rng.random() < self.guide_prob
        max_min = guided and self.region_choice == "max-min"
        consistency = guided and self.consistency
        if max_min or consistency:
            guide = model.guide(images)
        if max_min:
            to = least_attended(guide.attention, side)
            origin = most_attended(guide.attention.flip(0), side)
        else:
            to, origin = (
                random_corners(batch, grid, side, rng).to(images.device, non_blocking=True)
                for _ in range(2)
            )
        if batch % 2:  # the middle image is its own source: pasted in place, it stays as it is
            origin[batch // 2] = to[batch // 2]

        lam = target_fraction(side, grid)
        if isinstance(lam, Tensor):
            lam = lam.to(images.device, non_blocking=True)
        teacher_logits = None
        if consistency:
            assert guide.logits is not None, "the module refuses a model that gives none"
            # The mixed logits are softmaxed, not the softmaxes mixed.
            teacher_logits = blend(guide.logits.float(), lam)
        return Mixed(
            images=paste(images, images.flip(0), to, origin, side, grid),
            labels=blend(labels, lam),
            lam=lam,
            regions=Regions(window_mask(to, side, grid), labels, labels.flip(0))
            if self.fine_grained
            else None,
            teacher_logits=teacher_logits,
            notes={"region_side": float(np.asarray(side).mean()), "branch": 1.0},
        )


def target_fraction(side: Side, grid: tuple[int, int]) -> float | Tensor:
    """Lam = (N - r^2) / N, the target image's share of the tokens (1 - lambda in the paper).

    Returns:
        One number for one side; ``(B, 1)`` float32 for a side per image.
    """
    tokens = grid[0] * grid[1]
    if isinstance(side, Tensor):
        return (tokens - side[:, None].float() ** 2) / tokens
    return (tokens - side**2) / tokens
