"""SMMix: attention-guided region replacement (Chen et al., ICCV 2023).

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w tokens, K classes, r window side.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import one_of, positive, probability
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, Regions, blend, blend_labels
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
    """Mix images by attention-guided region replacement (SMMix), or by Mixup.

    In the SMMix branch, the most attended region of the source image replaces the least attended
    region of the target image. Attention comes from a guide pass of the model being trained, which
    also provides the consistency target. As in the authors' code (`SMMix.__call__`), `lam` is the
    target fraction, 1 - lambda in the paper.

    Args:
        switch_prob: Probability of SMMix instead of Mixup, drawn once per batch, in [0, 1].
        mixup_alpha: Alpha of Mixup. Above 0.
        min_side_ratio: Minimum region side as a fraction of the shorter token grid side, in (0, 1).
        max_side_ratio: Maximum region side as a fraction of the shorter token grid side, in (0, 1).
        region_choice: `max-min` uses attention; `random` places both regions at random (ablation).
        per_sample_side: Draw a region side per image instead of one per batch (not in the paper).
        fine_grained: Return the inputs of the fine-grained label loss.
        consistency: Return the target of the consistency loss.
        guide_prob: Probability that an SMMix batch uses a guide pass, in [0, 1]. Other batches use
            random regions and no consistency loss, at the cost of CutMix (not in the paper).
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
                f"model.mixer.min_side_ratio={min_side_ratio}, "
                f"model.mixer.max_side_ratio={max_side_ratio}: must satisfy "
                "0 < min_side_ratio <= max_side_ratio < 1. The paper uses 0.25 and 0.75."
            )
        one_of("model.mixer.region_choice", region_choice, ("max-min", "random"))
        self.mixup = Mixup(positive("model.mixer.mixup_alpha", mixup_alpha, "The paper uses 0.8"))
        self.switch_prob = probability("model.mixer.switch_prob", switch_prob)
        self.min_side_ratio = min_side_ratio
        self.max_side_ratio = max_side_ratio
        self.region_choice = region_choice
        self.per_sample_side = per_sample_side
        self.fine_grained = fine_grained
        self.consistency = self.reads_logits = consistency
        self.guide_prob = probability("model.mixer.guide_prob", guide_prob)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Check that the grid leaves room for a region. See `Mixer`."""
        self._side_range(grid)

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        if rng.random() >= self.switch_prob:
            return replace(self.mixup(images, labels, model, rng), notes={"branch": 0.0})
        low, high = self._side_range(model.grid)
        if self.per_sample_side:
            sides = torch.from_numpy(rng.integers(low, high, size=len(images), endpoint=True))
            return self.mix_regions(images, labels, model, sides, rng)
        return self.mix_regions(images, labels, model, int(rng.integers(low, high + 1)), rng)

    def _side_range(self, grid: tuple[int, int]) -> tuple[int, int]:
        return side_range(grid, self.min_side_ratio, self.max_side_ratio)

    def mix_regions(
        self,
        images: Tensor,
        labels: Tensor,
        model: GuideModel,
        side: Side,
        rng: np.random.Generator,
    ) -> Mixed:
        """Run the SMMix branch at a given region side.

        Args:
            images: `(B, C, H, W)`. Left unchanged.
            labels: Soft labels, `(B, K)`. Left unchanged.
            model: The model being trained.
            side: Region side in tokens: one for the batch, or a CPU tensor `(B,)`.
            rng: Source of random regions. With `max-min` regions and `guide_prob=1`, nothing is
                drawn.
        """
        batch, grid = len(images), model.grid
        guided = self.guide_prob == 1 or rng.random() < self.guide_prob
        max_min = guided and self.region_choice == "max-min"
        consistency = guided and self.consistency
        attention = None
        if max_min or consistency:
            guide = model.guide(images)
        if max_min:
            attention = guide.attention
            to = least_attended(attention, side)
            origin = most_attended(attention.flip(0), side)
        else:
            to, origin = (
                random_corners(batch, grid, side, rng).to(images.device, non_blocking=True)
                for _ in range(2)
            )
        if batch % 2:  # the middle image is its own source: pasted in place, it does not change
            origin[batch // 2] = to[batch // 2]

        lam = self.label_weight(attention, to, origin, side, grid)
        teacher_logits = None
        if consistency:
            assert guide.logits is not None, "mixers with reads_logits need a complete guide pass"
            # As in the paper, logits are mixed, not probabilities. The loss applies the softmax.
            teacher_logits = blend(guide.logits.float(), lam)
        return Mixed(
            images=paste(images, images.flip(0), to, origin, side, grid),
            labels=blend_labels(labels, lam),
            lam=lam,
            regions=Regions(window_mask(to, side, grid), labels, labels.flip(0))
            if self.fine_grained
            else None,
            teacher_logits=teacher_logits,
            notes={"region_side": float(np.asarray(side).mean()), "branch": 1.0},
        )

    def label_weight(
        self,
        attention: Tensor | None,
        to: Tensor,
        origin: Tensor,
        side: Side,
        grid: tuple[int, int],
    ) -> float | Tensor:
        """Return the label weight of the target image: its area.

        Args:
            attention: Attention of the unmixed images, `(B, G_h, G_w)`. None if regions are random.
            to: Corners of the windows that are replaced in the target images, `(B, 2)`.
            origin: Corners of the windows that are pasted from the source images, `(B, 2)`.
            side: Side of both.
            grid: `(G_h, G_w)`.

        Returns:
            One number, or `(B, 1)` on the device of the corners.
        """
        lam = target_fraction(side, grid)
        return lam.to(to.device, non_blocking=True) if isinstance(lam, Tensor) else lam


def target_fraction(side: Side, grid: tuple[int, int]) -> float | Tensor:
    """Compute lam = (N - r^2) / N, the target image's fraction of the tokens.

    Returns:
        One number for one side; `(B, 1)` float32 for one side per image.
    """
    tokens = grid[0] * grid[1]
    if isinstance(side, Tensor):
        return (tokens - side[:, None].float() ** 2) / tokens
    return (tokens - side**2) / tokens
