"""Jaccard index of the tokens that hold most of a map with segmentation masks.

Shapes: h heads, G_h G_w token grid, H W pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


def mass_mask(maps: Tensor, mass: float) -> Tensor:
    """Select the tokens of the largest values that together hold a fraction of the sum.

    Args:
        maps: Non-negative, `(..., G_h, G_w)`.
        mass: The fraction, in (0, 1].

    Returns:
        Bool tensor of the same shape.
    """
    values, order = maps.flatten(-2).sort(dim=-1)
    held = values.cumsum(dim=-1) / values.sum(dim=-1, keepdim=True)
    return (held > 1 - mass).gather(-1, order.argsort(dim=-1)).view_as(maps)


def class_jaccards(masks: Tensor, truth: Tensor, void: int) -> Tensor:
    """Compute the Jaccard index of masks with each class of an image. Void pixels do not count.

    Args:
        masks: `(h, H, W)` bool.
        truth: Class of each pixel, `(H, W)`; 0 is background.
        void: Value of pixels without a label.

    Returns:
        `(classes, h)`, with a row for each class in the image.
    """
    counted = truth != void
    found = masks & counted
    rows = []
    for number in truth[counted].unique().tolist():
        if number:
            object_ = truth == number
            both, either = (found & object_).sum((1, 2)), (found | object_).sum((1, 2))
            rows.append(both / either)
    return torch.stack(rows) if rows else found.new_zeros((0, len(found)), dtype=torch.float32)


class MaskJaccard(Metric):
    """Jaccard index of attention with segmentation masks, a mean over classes, then over images.

    `best_head` takes the best head of each class, as IPViT does (Naseer et al., 2021): the answer
    selects the head. `mean_map` is that of the map averaged over heads. Differences from IPViT's
    code: void pixels are excluded, and masks are resized by nearest neighbor.

    Args:
        mass: Fraction of the map that the selected tokens hold.
        void: Mask value of pixels without a label.
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, mass: float, void: int) -> None:
        super().__init__()
        self.mass, self.void = mass, void
        self.add_state("total", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, maps: Tensor, truth: Tensor) -> None:
        """Add an image. One without a labeled object does not count.

        Args:
            maps: Map of each head, `(h, G_h, G_w)`.
            truth: Class of each pixel, `(H, W)`.
        """
        both = torch.cat((maps, maps.mean(dim=0, keepdim=True)))
        tokens = mass_mask(both, self.mass)
        masks = F.interpolate(tokens[None].float(), truth.shape, mode="nearest")[0] > 0
        jaccards = class_jaccards(masks, truth.to(masks.device), self.void)
        if len(jaccards):
            found = (jaccards[:, :-1].max(dim=1).values.mean(), jaccards[:, -1].mean())
            self.total += torch.stack(found).to(self.total)
            self.images += 1

    def compute(self) -> dict[str, float]:
        """Return `best_head` and `mean_map`, NaN without images."""
        best_head, mean_map = (self.total / self.images).tolist()
        return {"best_head": best_head, "mean_map": mean_map}
