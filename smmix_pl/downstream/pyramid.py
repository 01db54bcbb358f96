"""Feature maps at strides 4, 8, 16, and 32 from any timm backbone.

Shapes: B batch, H W pixels, C_i channels of level i.
"""

from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from smmix_pl.errors import InputError
from smmix_pl.models.timm_model import (
    ImageSize,
    args_for_any_size,
    create_timm_model,
    model_name,
)
from smmix_pl.models.weights import load_weights

STRIDES = (4, 8, 16, 32)
LEVELS = len(STRIDES)


class FeaturePyramid(nn.Module):
    """A timm model without its head, with one feature map per stride.

    Hierarchical models (PVT, Swin) have these maps. In plain models (DeiT, CaiT), whose maps all
    have one stride, four equally spaced blocks are read. Their maps are scaled by two transposed
    convolutions, one, none, and a max pool, as BEiT does (Bao et al., 2022). With patches of 8 or
    14 pixels, strides are 8 / 16 or 14 / 16 of those named here.

    Args:
        backbone: Name of a timm model.
        image_size: Size of training images in pixels, (height, width).
        backbone_args: Further arguments of `timm.create_model`.
        pretrained: Load timm's pretrained weights.
        init_from: File of weights, as in `SMMixModule`.
        init_image_size: Image size that the position embeddings in `init_from` were trained with.
        frozen: Train the scaling alone, and keep the model in eval mode.
        norm_maps: Normalize each map over its channels, as the dense tasks of Swin do.

    Attributes:
        plain: All maps of the model have one stride.
        channels: C_i of the four maps.
        strides: Pixels per cell of the four maps.
        multiple: Sides of images are multiples of this.

    Raises:
        InputError: The model gives no such maps for images of this size.
    """

    token_head: None = None

    def __init__(
        self,
        backbone: str,
        image_size: ImageSize,
        backbone_args: dict[str, Any] | None = None,
        pretrained: bool = False,
        init_from: str | None = None,
        init_image_size: ImageSize | None = None,
        frozen: bool = False,
        norm_maps: bool = False,
    ) -> None:
        super().__init__()
        args = args_for_any_size(backbone) | (backbone_args or {})
        self.model, _ = create_timm_model(backbone, 0, image_size, pretrained, args)
        self.frozen = frozen
        reductions, widths = _feature_info(self.model)
        self.plain = len(set(reductions)) == 1
        stride = reductions[-1]
        self.multiple = 2 * stride if self.plain else stride
        self.strides = [one * self.multiple / STRIDES[-1] for one in STRIDES]
        if any(side % self.multiple for side in image_size):
            raise InputError(
                f"data.image_size={image_size[0]} x {image_size[1]}: must be divisible by "
                f"{self.multiple} for a pyramid of {backbone}. Use multiples of it."
            )
        self.grid = (image_size[0] // stride, image_size[1] // stride)
        if init_from is not None:
            rank_zero_info(load_weights(self, init_from, image_size=init_image_size))
        self.indices = self._levels(reductions)
        self.model.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        self.model.requires_grad_(not frozen)
        self.channels = [widths[index] for index in self.indices]
        self.norms = nn.ModuleList(
            LayerNorm2d(one, eps=1e-5) if norm_maps else nn.Identity() for one in self.channels
        )
        self.scales = (
            _scales(widths[-1]) if self.plain else nn.ModuleList(nn.Identity() for _ in STRIDES)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps `(B, C_i, H / stride, W / stride)` of images `(B, 3, H, W)`."""
        maps = self.model.forward_intermediates(images, self.indices, intermediates_only=True)
        normed = [norm(one) for norm, one in zip(self.norms, maps, strict=True)]
        return [scale(one) for scale, one in zip(self.scales, normed, strict=True)]

    def train(self, mode: bool = True) -> "FeaturePyramid":
        """Set the mode. A frozen model stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def _levels(self, reductions: list[int]) -> list[int]:
        """Return the indices of the blocks or stages that are read."""
        if self.plain:
            return [len(reductions) * (level + 1) // LEVELS - 1 for level in range(LEVELS)]
        last = {stride: index for index, stride in enumerate(reductions)}
        if not last.keys() >= set(STRIDES):
            raise InputError(
                f"model.backbone={model_name(self.model)}: has maps at strides {sorted(last)}, but "
                f"a pyramid needs {STRIDES}. Use another model, such as pvt_small."
            )
        return [last[stride] for stride in STRIDES]


def _feature_info(model: Any) -> tuple[list[int], list[int]]:
    """Return stride and width of each map of a model.

    Raises:
        InputError: The model does not give intermediate maps.
    """
    if not hasattr(model, "forward_intermediates"):
        raise InputError(
            f"model.backbone={model_name(model)}: gives no intermediate maps. Use another model, "
            "such as deit_small_patch16_224."
        )
    infos = list(model.feature_info)
    return [one["reduction"] for one in infos], [one["num_chs"] for one in infos]


def _scales(width: int) -> nn.ModuleList:
    """Return BEiT's scaling of one map to strides 4, 8, 16, and 32, for patches of 16 pixels."""

    def double() -> nn.Module:
        return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)

    norm = nn.BatchNorm2d(width)
    return nn.ModuleList(
        (
            nn.Sequential(double(), norm, nn.GELU(), double()),
            double(),
            nn.Identity(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
    )
