"""A backbone without class head, for evaluations of its attention and features."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from smmix_pl.base_module import BaseModule
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.weights import load_weights
from smmix_pl.runs.checkpoint_checks import check_weight_sources, file_provenance


class FrozenBackbone(BaseModule):
    """A pretrained backbone without class head, which is tested and not trained.

    For `smmix test` with callbacks that need no classifier: `Localization` and `KNN`. The dataset
    may have other classes than the weights were trained with.

    Args:
        image_size: (height, width) in pixels. Set by the data on the command line.
        mean: Channel means of the normalization. Set by the data on the command line.
        std: Channel standard deviations of the normalization. Set by the data on the command line.
        backbone: Name of a timm model.
        backbone_args: Further arguments of `timm.create_model`.
        pretrained: Start from timm's pretrained weights.
        init_from: Start from the weights in a file: a checkpoint of a run, the authors' release, an
            original release of the backbone, or a timm file.
        init_image_size: (height, width) that the position embeddings in `init_from` were trained
            with. `null` infers it from the file; an error asks for it where that is ambiguous.
    """

    task = "frozen features"
    has_trained_head = True  # none that could be random

    def __init__(
        self,
        image_size: tuple[int, int],
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        backbone: str = "deit_small_patch16_224",
        backbone_args: dict[str, Any] | None = None,
        pretrained: bool = False,
        init_from: str | None = None,
        init_image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["init_from"])
        self.num_classes = 0
        self.backbone, self.provenance = frozen_backbone(
            backbone, image_size, backbone_args, pretrained, init_from, init_image_size
        )

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the `logits` of no class, `(B, 0)`; the callbacks look at the images."""
        return {"logits": torch.empty(len(batch[0]), 0, device=self.device)}


def frozen_backbone(
    name: str,
    image_size: tuple[int, int],
    args: dict[str, Any] | None,
    pretrained: bool,
    init_from: str | None,
    init_image_size: tuple[int, int] | None,
) -> tuple[Backbone, dict[str, Any]]:
    """Return a backbone without class head or gradients, and how its weights were trained.

    Arguments: see `FrozenBackbone`.

    Raises:
        InputError: The weights do not fit, or two sources of weights are given.
    """
    check_weight_sources(pretrained, init_from)
    backbone = Backbone(
        name,
        0,
        image_size,
        token_head="shared",
        guide=GuideConfig(readout="similarity"),  # any model with image tokens has it
        pretrained=pretrained,
        model_args=args,
    )
    trained: dict[str, Any] = {}
    if init_from is not None:
        rank_zero_info(load_weights(backbone, init_from, image_size=init_image_size))
        trained = file_provenance(init_from)
    backbone.requires_grad_(False)
    return backbone, trained
