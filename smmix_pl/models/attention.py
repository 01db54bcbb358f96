"""The tap: where a timm model's last attention map is read, without touching any other block.

B batch, h heads, Q queries, M keys, G_h G_w token grid, N = G_h * G_w image tokens, P prefix tokens
(class, distillation and register tokens, which timm puts first).

The paper's, and its release's: the last self-attention's softmaxed map, its mean over heads and
over the queries of the image tokens. Rows of the map sum to 1 over all keys, so what falls on the
image tokens sums to 1 where there is no prefix (PVT v2, Swin, Twins, CaiT) and to less where there
is one: the rest goes to the prefix.

Our reading: CaiT. The paper trains it, its release holds no code for it, and CaiT ends in class
attention, whose one query is the class token. ``tokens`` stays with the rule above: the last
talking-heads self-attention, as it leaves the softmax, because the linear mix of heads that follows
(``proj_w``) leaves no distribution. ``class`` is the other reading: the class token's row of the
last class attention. XCiT, which the paper does not train, has class attention alone to offer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.models import cait, volo, xcit
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Readout

CLASS_ATTENTION = (cait.ClassAttn, volo.ClassAttention, xcit.ClassAttn)
"""One query, the class token: ``(B, h, 1, P + N)``."""
CHANNEL_ATTENTION = (xcit.XCA,)
"""Attends over channels: its map says nothing about places."""


class AttentionTap:
    """Records the softmaxed map of one attention module while a ``with`` block lasts.

    timm's attention modules all send their softmaxed map through a submodule named ``attn_drop``
    when ``fused_attn`` is off. So for the length of the block the chosen module runs unfused with a
    hook there; before and after, and in every other module, the fused kernel stays.

    Args:
        model: A timm model.
        readout: ``tokens`` takes the last self-attention module; ``class`` the last module of all,
            which in CaiT and XCiT is class attention. XCiT has no self-attention over tokens, so it
            gives its class attention in both cases.

    Raises:
        InputError: The model has no attention map over tokens.
    """

    def __init__(self, model: nn.Module, readout: Readout = "tokens") -> None:
        maps = [
            module
            for module in model.modules()
            if isinstance(getattr(module, "attn_drop", None), nn.Module)
            and not isinstance(module, CHANNEL_ATTENTION)
        ]
        of_tokens = [module for module in maps if not isinstance(module, CLASS_ATTENTION)]
        if not maps:
            raise InputError(
                f"{type(model).__name__} has no attention map that SMMix could read: "
                "none of its modules is an attention over tokens with an attn_drop; "
                "choose a vision transformer such as deit_tiny_patch16_224"
            )
        self.module: Any = (of_tokens or maps)[-1] if readout == "tokens" else maps[-1]

    @contextmanager
    def record(self) -> Iterator[list[Tensor]]:
        """Collect the maps ``(B, h, Q, M)`` of every forward pass inside the block."""
        maps: list[Tensor] = []
        fused = getattr(self.module, "fused_attn", None)
        handle = self._hook(maps)
        try:
            if fused is not None:
                self.module.fused_attn = False
            yield maps
        finally:
            handle.remove()
            if fused is not None:
                self.module.fused_attn = fused

    def _hook(self, maps: list[Tensor]) -> RemovableHandle:
        if isinstance(self.module, cait.TalkingHeadAttn):
            # Its heads are mixed linearly between softmax and attn_drop; what is a distribution
            # is what enters that mix, (B, Q, M, h).
            return self.module.proj_w.register_forward_pre_hook(
                lambda _, args: maps.append(args[0].permute(0, 3, 1, 2))
            )
        return self.module.attn_drop.register_forward_pre_hook(lambda _, args: maps.append(args[0]))


def attention_to_tokens(attention: Tensor, grid: tuple[int, int], readout: Readout) -> Tensor:
    """How much each image token is attended to, on the token grid.

    Args:
        attention: Softmaxed map, ``(B, h, Q, P + N)``.
        grid: ``(G_h, G_w)``.
        readout: ``tokens`` averages over heads and over the queries of all image tokens, as SMMix
            does; ``class`` averages the class token's query over heads.

    Returns:
        ``(B, G_h, G_w)`` float32.
    """
    prefix = attention.shape[-1] - grid[0] * grid[1]
    # The whole map is large: it is averaged in one go, in float32 without a float32 copy.
    if readout == "tokens" and attention.shape[2] > 1:
        received = attention[:, :, prefix:, prefix:].mean(dim=(1, 2), dtype=torch.float32)
    else:
        received = attention[:, :, 0, prefix:].mean(dim=1, dtype=torch.float32)
    return received.unflatten(1, grid)
