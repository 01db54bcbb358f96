"""TL-Align: labels follow the tokens through every block (Xiao et al., ICCV 2023)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.masks import mix_by_mask


class TLAlign(Mixer):
    """Mix each batch by CutMix on the token grid, with token-label alignment.

    Each token starts with the label of its image, the class token with the mixed label by area.
    Each block averages the label of a token with those that it attends to. The class token's label
    after the last block is the target. This is linear in the labels, so that it is the attention
    rollout of the class token, summed over the tokens of each image.

    As in the authors' code (Euphoria16/TL-Align, `tla.py` and `vision_transformer.py`): all batches
    are mixed, the box is drawn in tokens, and no gradient flows through the attention. Box sides
    are even, as in CutMix. Needs a plain ViT with a class token.

    Args:
        alpha: Before clipping, the box covers 1 - lam of the tokens, lam ~ Beta(alpha, alpha).
            Above 0.
    """

    readout = "rollout"

    def __init__(self, alpha: float = 1.0) -> None:
        self.cutmix = CutMix(positive("model.mixer.alpha", alpha, "The paper uses 1"))

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Check that boxes of even sides fit into the grid. See `Mixer`."""
        if min(grid) < 3:
            raise InputError(
                f"data.image_size: TLAlign cannot place boxes on the {grid[0]} x {grid[1]} token "
                "grid, which needs three rows and columns. Use larger images or smaller patches."
            )

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        rows, columns = self.cutmix.box(*model.grid, rng)
        mask = torch.zeros(1, *model.grid, dtype=torch.bool, device=images.device)
        mask[:, rows, columns] = True
        mixed = mix_by_mask(images, labels, mask)

        def attentive_labels(attention: Tensor, logits: Tensor) -> Tensor:
            on_target = (attention * ~mask).sum(dim=(1, 2)).unsqueeze(1)
            of_class_token = 1.0 - attention.sum(dim=(1, 2)).unsqueeze(1)
            return blend_labels(labels, on_target + of_class_token * mixed.lam)

        return replace(mixed, attentive_labels=attentive_labels)
