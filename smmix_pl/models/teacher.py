"""A frozen teacher: a trained timm model that labels mixed images, or guides the mixing.

B batch, C channels, H W pixels, K classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Guide
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.timm_model import ImageSize, create_timm_model
from smmix_pl.models.weights import load_weights


@dataclass(frozen=True)
class TeacherConfig:
    """A trained timm model for `losses.distillation` or `guide.source=teacher`.

    It is frozen, in eval mode, and not part of checkpoints: a resumed run loads it again from here.

    Args:
        backbone: Name of any timm model.
        backbone_args: Further arguments of `timm.create_model`.
        pretrained: Use timm's pretrained weights. Their classes must be those of the data.
        init_from: Use the weights in a file, as `model.init_from` does.
    """

    backbone: str
    backbone_args: dict[str, Any] | None = None
    pretrained: bool = False
    init_from: str | None = None

    def __post_init__(self) -> None:
        if self.pretrained == (self.init_from is not None):
            raise InputError(
                f"model.teacher.init_from={self.init_from}, model.teacher.pretrained="
                f"{self.pretrained}: a teacher needs one source of weights. Set one of them."
            )


class Teacher(nn.Module):
    """A trained timm model without gradients, always in eval mode.

    Args:
        config: Model and source of its weights.
        num_classes: Number of classes, K.
        image_size: (height, width) of the images that it gets, in pixels.
        mean: Channel means that the images are normalized with. Those of the teacher may differ.
        std: Channel standard deviations that the images are normalized with.
        guide: Settings of guide passes. None for a teacher that only classifies, which may be any
            timm model.
        grid: Token grid of guide attention. None uses the teacher's own.

    Raises:
        InputError: The weights do not fit, or have no class head for these classes.
    """

    grid: ImageSize
    token_head: nn.Linear | None = None  # `load_weights` reads it
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        config: TeacherConfig,
        num_classes: int,
        image_size: ImageSize,
        mean: Sequence[float],
        std: Sequence[float],
        guide: GuideConfig | None = None,
        grid: ImageSize | None = None,
    ) -> None:
        super().__init__()
        self.backbone: Backbone | None = None
        self.model: Any
        name, args = config.backbone, config.backbone_args or {}
        try:
            if guide is not None:
                self.backbone = Backbone(
                    name,
                    num_classes,
                    image_size,
                    token_head="shared",
                    guide=replace(guide, source="self"),
                    pretrained=config.pretrained,
                    model_args=args,
                )
                self.model = self.backbone.model
            else:
                self.model, _ = create_timm_model(
                    name, num_classes, image_size, config.pretrained, args
                )
            stride = self.model.feature_info[-1]["reduction"]
            self.grid = image_size[0] // stride, image_size[1] // stride
            if config.init_from is not None:
                load_weights(self.backbone or self, config.init_from)
        except InputError as error:  # a teacher has the options of the model, under its own name
            raise InputError(re.sub(r"\bmodel\.", "model.teacher.", str(error))) from error
        own = self.model.pretrained_cfg
        if own["num_classes"] != num_classes:
            raise InputError(
                f"model.teacher.backbone={name}: its weights have no class head for the "
                f"{num_classes} classes of the data. Use a teacher that was trained on them."
            )
        self.grid = grid or self.grid
        scale = torch.tensor(std) / torch.tensor(own["std"])
        shift = (torch.tensor(mean) - torch.tensor(own["mean"])) / torch.tensor(own["std"])
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return class logits `(B, K)` of normalized images `(B, C, H, W)`."""
        logits: Tensor = self.model(self._renormalized(images))
        return logits

    def guide(self, images: Tensor) -> Guide:
        """Run a guide pass over normalized images `(B, C, H, W)`. See `Backbone.guide`."""
        assert self.backbone is not None, "built without guide settings"
        found = self.backbone.guide(self._renormalized(images))
        attention = found.attention
        if attention.shape[1:] != self.grid:
            attention = F.interpolate(attention[:, None], self.grid, mode="bilinear")[:, 0]
        return Guide(found.logits, attention)

    def input_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the teacher's loss at each pixel. See `Backbone`."""
        assert self.backbone is not None, "built without guide settings"
        return self.backbone.input_gradient(self._renormalized(images), labels) * self.scale

    def _renormalized(self, images: Tensor) -> Tensor:
        # the student, and so its images, may be in bfloat16
        return images.to(self.scale.dtype) * self.scale + self.shift
