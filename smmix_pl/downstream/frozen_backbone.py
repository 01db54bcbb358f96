"""A backbone without class head, for evaluations of its attention and features."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.models.backbone import Backbone, GuideConfig
from smmix_pl.models.weights import load_weights, open_checkpoint
from smmix_pl.runs.checkpoint_checks import provenance


class FrozenBackbone(LightningModule):
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

    has_trained_head = True
    """It has no head that could be random."""

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
        if pretrained and init_from:
            raise InputError(
                f"model.init_from={init_from}: cannot be combined with model.pretrained=true. "
                "Remove one of them."
            )
        self.save_hyperparameters(logger=False)
        self.num_classes = 0
        self.backbone = Backbone(
            backbone,
            0,
            image_size,
            token_head="shared",
            guide=GuideConfig(readout="similarity"),
            pretrained=pretrained,
            model_args=backbone_args,
        )
        self.provenance: dict[str, Any] = {"mixer": "unknown"}
        """Mixer and seed that the loaded weights were trained with."""
        if init_from is not None:
            content = open_checkpoint(init_from)
            rank_zero_info(load_weights(self.backbone, init_from, image_size=init_image_size))
            self.provenance |= provenance(content) if isinstance(content, dict) else {}
        self.requires_grad_(False)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the `logits` of no class, `(B, 0)`; the callbacks look at the images."""
        return {"logits": torch.empty(len(batch[0]), 0, device=self.device)}
