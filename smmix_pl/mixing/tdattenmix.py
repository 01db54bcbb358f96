"""TdAttenMix: max-min regions with labels by area and attention (Wang et al., AAAI 2025)."""

from torch import Tensor

from smmix_pl.mixing.regions import Side, window_mask
from smmix_pl.mixing.smmix import SMMix


class TdAttenMix(SMMix):
    """Mix as SMMix does, with labels that balance area and attention.

    Regions and losses are those of SMMix. The label weight of the target image is the mean of its
    area and of its attention: what is left of the target's attention, divided by the sum of that
    and of the attention that the source image pays to the pasted region.

    In the paper, the attention comes from AbSViT, a trained network that also gets the label. Here,
    the model being trained guides, or a trained `model.teacher` with `guide.source=teacher`. The
    released code (morning12138/AAAI2025_TdAttenMix, `tdattenmix.py`) has two
    details that are not repeated here: it uses one weight for the batch, from the sums over all
    images, and it reads the pasted region in the attention map of the target image.

    Args:
        switch_prob: Probability of TdAttenMix instead of Mixup, drawn once per batch, in [0, 1].
        mixup_alpha: Alpha of Mixup. Above 0.
        min_side_ratio: Minimum region side as a fraction of the shorter token grid side, in (0, 1).
        max_side_ratio: Maximum region side as a fraction of the shorter token grid side, in (0, 1).
        fine_grained: Return the inputs of the fine-grained label loss.
        consistency: Return the target of the consistency loss.
    """

    def __init__(
        self,
        switch_prob: float = 0.5,
        mixup_alpha: float = 0.8,
        min_side_ratio: float = 0.25,
        max_side_ratio: float = 0.75,
        fine_grained: bool = True,
        consistency: bool = True,
    ) -> None:
        super().__init__(
            switch_prob,
            mixup_alpha,
            min_side_ratio,
            max_side_ratio,
            fine_grained=fine_grained,
            consistency=consistency,
        )

    def label_weight(
        self,
        attention: Tensor | None,
        to: Tensor,
        origin: Tensor,
        side: Side,
        grid: tuple[int, int],
    ) -> float | Tensor:
        """Return the label weight of the target image, `(B, 1)`. See `SMMix`."""
        assert attention is not None, "the regions are always guided"
        area = super().label_weight(attention, to, origin, side, grid)
        target, source = attention.flatten(1), attention.flip(0).flatten(1)
        kept = (target * ~window_mask(to, side, grid)).sum(dim=1, keepdim=True)
        pasted = (source * window_mask(origin, side, grid)).sum(dim=1, keepdim=True)
        return (area + kept / (kept + pasted)) / 2
