"""The attention tap: read the last attention map of a timm model without changing other blocks.

B batch, h heads, Q queries, M keys, G_h G_w token grid, N = G_h * G_w image tokens, P prefix tokens
(class, distillation and register tokens, which timm puts first).

As in the paper and the authors' code, the attention is the softmaxed map of the last self-attention
module, averaged over heads and over the queries of the image tokens. Each row of the map sums to 1
over all keys. Without prefix tokens (PVT v2, Swin, Twins, CaiT), the result sums to 1 over the
image tokens. With prefix tokens it sums to less, because they receive the rest.

CaiT is our reading: the paper trains it, but the authors' code does not include it. CaiT ends in
class attention, whose only query is the class token. `tokens` follows the rule above and reads the
last talking-heads self-attention right after its softmax, because the linear mix of heads that
follows (`proj_w`) does not return a distribution. `class` reads the class token's row of the last
class attention. XCiT, which the paper does not train, has class attention only.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from timm.models import cait, edgenext, volo, xcit
from torch import Tensor, nn

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Readout
from smmix_pl.models.timm_model import ImageSize, model_name
from smmix_pl.models.tokens import count_prefix_tokens, has_class_token

CLASS_ATTENTION = (cait.ClassAttn, volo.ClassAttention, xcit.ClassAttn)
"""Modules whose only query is the class token: `(B, h, 1, P + N)`."""
CHANNEL_ATTENTION = (edgenext.CrossCovarianceAttn, xcit.XCA)
"""Modules that attend over channels, so that their maps have no positions."""


class AttentionTap:
    """Records the softmaxed map of attention modules inside a `with` block.

    timm's attention modules send their softmaxed map through a submodule named `attn_drop` when
    `fused_attn` is off. Inside the block, the selected modules run unfused with a hook there. All
    other modules keep the fused kernel, and so do these outside the block.

    Args:
        model: A timm model.
        readout: `tokens` selects the last self-attention module. `class` selects the last module,
            which is class attention in CaiT and XCiT. XCiT has no self-attention over tokens, so
            its class attention is used for both. `rollout` selects all modules.

    Raises:
        InputError: The model has no attention map over tokens that is a distribution.
    """

    def __init__(self, model: nn.Module, readout: Readout = "tokens") -> None:
        name = type(model).__name__
        modules = [
            module
            for module in model.modules()
            if isinstance(getattr(module, "attn_drop", None), nn.Module)
            and not isinstance(module, CHANNEL_ATTENTION)
        ]
        if not modules:
            raise InputError(
                f"model.backbone: {name} has no attention map over image tokens (no attention "
                "module with a submodule attn_drop). Use a vision transformer such as "
                "deit_tiny_patch16_224, or set model.guide.readout=similarity."
            )
        over_tokens = [module for module in modules if not isinstance(module, CLASS_ATTENTION)]
        self.module: Any = (over_tokens or modules)[-1] if readout == "tokens" else modules[-1]
        self.modules: list[Any] = modules if readout == "rollout" else [self.module]
        if readout == "rollout" and not has_class_token(model):
            raise InputError(
                f"model.guide.readout=rollout: {name} has no class token. Use tokens or similarity."
            )
        # timm's modules have no common base class; their lambda marks differential attention.
        if any(hasattr(module, "lambda_init") for module in self.modules):
            raise InputError(
                f"model.backbone: {name} ends in differential attention. Its map is the difference "
                "of two softmax maps, which is not a distribution over tokens. Use a model with "
                "softmax attention, such as deit_tiny_patch16_224, or set "
                "model.guide.readout=similarity."
            )
        self.rolls_out = readout == "rollout"

    @contextmanager
    def record(self) -> Iterator[list[Tensor]]:
        """Collect the map `(B, h, Q, M)` of the forward pass inside the block.

        With `rollout`, it is the class token's rollout, `(B, 1, 1, M)`.

        Raises:
            InputError: A module did not compute exactly one map.
        """
        maps: list[Tensor] = []
        keep = self._keep_mean if self.rolls_out else list[Tensor].append
        with ExitStack() as stack:
            for module in self.modules:
                stack.enter_context(_unfused(module, lambda found: keep(maps, found)))
            yield maps
        if len(maps) != len(self.modules):
            name = type(self.module).__name__
            raise InputError(
                f"model.backbone: {name} computes {len(maps)} softmaxed maps per forward pass, but "
                f"SMMix needs exactly {len(self.modules)}. Use a vision transformer such as "
                "deit_tiny_patch16_224, or set model.guide.readout=similarity."
            )
        if self.rolls_out:
            maps[:] = [class_rollout(maps)]

    @staticmethod
    def _keep_mean(maps: list[Tensor], found: Tensor) -> None:
        """Keep a mean over heads without gradient: the maps of all blocks are large."""
        maps.append(found.detach().mean(dim=1, dtype=torch.float32))


@contextmanager
def _unfused(module: Any, keep: Callable[[Tensor], None]) -> Iterator[None]:
    """Run an attention module unfused inside the block, and pass its softmaxed map to `keep`."""
    fused = getattr(module, "fused_attn", None)
    if isinstance(module, cait.TalkingHeadAttn):
        # Heads are mixed linearly between softmax and attn_drop. The input of that mix,
        # (B, Q, M, h), is the distribution.
        handle = module.proj_w.register_forward_pre_hook(
            lambda _, args: keep(args[0].permute(0, 3, 1, 2))
        )
    else:
        handle = module.attn_drop.register_forward_pre_hook(lambda _, args: keep(args[0]))
    try:
        if fused is not None:
            module.fused_attn = False
        yield
    finally:
        handle.remove()
        if fused is not None:
            module.fused_attn = fused


def class_rollout(maps: list[Tensor]) -> Tensor:
    """Roll the attention of the class token out through all blocks (Abnar and Zuidema, 2020).

    A block passes on half of each token and half of what it attends to, so that the rollout is row
    0 of the product of (A + I) / 2 over the maps A.

    Args:
        maps: Map of each block in order, the mean over heads, `(B, M, M)`.

    Returns:
        `(B, 1, 1, M)`, which sums to 1.

    Raises:
        InputError: The blocks attend to different tokens.
    """
    shapes = {tuple(found.shape[1:]) for found in maps}
    if len(shapes) > 1 or maps[0].shape[1] != maps[0].shape[2]:
        raise InputError(
            "model.guide.readout=rollout: the blocks of this model attend to different tokens. Use "
            "a plain vision transformer such as deit_tiny_patch16_224, or another readout."
        )
    row = torch.zeros_like(maps[0][:, :1])
    row[..., 0] = 1.0
    for attention in reversed(maps):
        row = (row @ attention + row) / 2
    return row[:, None]


def check_map(
    attention: Tensor, model: Any, tokens: int, readout: Readout, image_size: ImageSize
) -> None:
    """Check that the map of one image is one distribution over its tokens.

    Args:
        attention: The recorded map.
        model: The timm model.
        tokens: Number of image tokens, N.
        readout: `tokens` or `class`.
        image_size: Size of the image, for the error.

    Raises:
        InputError: The map covers other tokens, or has no row of a class token to read.
    """
    name, prefix = model_name(model), attention.shape[-1] - tokens
    if attention.ndim != 4 or len(attention) != 1 or prefix not in (0, count_prefix_tokens(model)):
        raise InputError(
            f"model.backbone={name}: cannot guide SMMix at {image_size[0]} x {image_size[1]} "
            f"pixels, because its last attention map, {tuple(attention.shape)} for one image, is "
            f"not one distribution over its {tokens} image tokens. Choose another model or image "
            "size, or set model.guide.readout=similarity."
        )
    has_class_row = attention.shape[2] == 1 or (prefix and has_class_token(model))
    if readout == "class" and not has_class_row:
        raise InputError(
            f"model.guide.readout=class: {name} has no class token. Use tokens or similarity."
        )


def attention_to_tokens(attention: Tensor, grid: tuple[int, int], readout: Readout) -> Tensor:
    """Compute how much attention each image token receives.

    Args:
        attention: Softmaxed map, `(B, h, Q, P + N)`.
        grid: `(G_h, G_w)`.
        readout: `tokens` averages over heads and over the queries of all image tokens, as in
            SMMix. `class` averages the class token's query over heads, and `rollout` has one.

    Returns:
        `(B, G_h, G_w)` float32.
    """
    prefix = attention.shape[-1] - grid[0] * grid[1]
    # The map is large. This mean accumulates in float32 without a float32 copy of it.
    if readout == "tokens" and attention.shape[2] > 1:
        received = attention[:, :, prefix:, prefix:].mean(dim=(1, 2), dtype=torch.float32)
    else:
        received = attention[:, :, 0, prefix:].mean(dim=1, dtype=torch.float32)
    return received.unflatten(1, grid)


def attention_of_heads(attention: Tensor, grid: tuple[int, int], readout: Readout) -> Tensor:
    """Compute how much attention each image token receives from each head, `(B, h, G_h, G_w)`.

    Arguments: see `attention_to_tokens`, which averages over heads.
    """
    prefix = attention.shape[-1] - grid[0] * grid[1]
    if readout == "tokens" and attention.shape[2] > 1:
        received = attention[:, :, prefix:, prefix:].mean(dim=2, dtype=torch.float32)
    else:
        received = attention[:, :, 0, prefix:].float()
    return received.unflatten(2, grid)
