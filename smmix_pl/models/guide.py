"""Shortened guide passes for plain ViT and PVT models.

SMMix needs only the class logits and the last attention map of a guide pass. In the last block,
the map is computed for all tokens, but only the prefix tokens go through the value projection, the
MLP and the final norm. The result equals a full forward pass, because a block processes each token
separately after its attention.

B batch, C channels, H W pixels, h heads, P prefix tokens (class, distillation and register tokens,
which timm puts first), N image tokens, M = P + N, D token width, A attention width, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from smmix_pl.models.pvt import PyramidVisionTransformer

ShortPass = Callable[[Any, Tensor], tuple[Tensor, Tensor]]
"""Maps a model in eval mode and images `(B, C, H, W)` to class logits `(B, K)` and the last
softmaxed attention map `(B, h, M, M)`."""


def find_short_pass(model: nn.Module) -> ShortPass | None:
    """Return the shortened guide pass of a model, or None if it needs its full forward pass."""
    if _is_plain_vit(model):
        return vit_short_pass
    if _is_plain_pvt(model):
        return pvt_short_pass
    return None


def vit_short_pass(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run the shortened guide pass of a plain ViT. See `ShortPass`."""
    prefix, block = model.num_prefix_tokens, model.blocks[-1]
    attention = block.attn
    x = _vit_before(model, len(model.blocks) - 1, images)
    normed = block.norm1(x)
    attention_map = _vit_map(attention, normed)
    attended = _values(attention_map, normed, prefix, *_rows(attention.qkv, 2, 3, 3))
    attended = attention.norm(attended)
    gate = getattr(attention, "gate", None)  # absent in older versions of timm
    if gate is not None:
        attended = attended * gate(normed[:, :prefix]).sigmoid()
    x = x[:, :prefix] + block.ls1(attention.proj(attended))
    x = x + block.ls2(block.mlp(block.norm2(x)))
    return model.forward_head(model.norm(x)), attention_map


def vit_map(model: Any, index: int, images: Tensor) -> Tensor:
    """Compute the softmaxed map of one block of a plain ViT, without running later blocks.

    Args:
        model: A `VisionTransformer` in eval mode.
        index: Index of the block, at least 1.
        images: `(B, C, H, W)`.

    Returns:
        `(B, h, M, M)`.
    """
    block = model.blocks[index]
    return _vit_map(block.attn, block.norm1(_vit_before(model, index, images)))


def pvt_short_pass(model: PyramidVisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run the shortened guide pass of PVT v1. See `ShortPass`."""
    prefix = model.num_prefix_tokens
    x, block = model.before_last_block(images)
    attention: Any = block.attn
    normed = block.norm1(x)
    q, k = (
        part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for part in (attention.q(normed), F.linear(normed, *_rows(attention.kv, 0, 1, 2)))
    )
    attention_map = (q * attention.scale @ k.mT).softmax(dim=-1)
    attended = _values(attention_map, normed, prefix, *_rows(attention.kv, 1, 2, 2))
    x = x[:, :prefix] + attention.proj(attended)
    x = x + block.mlp(block.norm2(x))
    return model.forward_head(model.norm(x)), attention_map


def _vit_before(model: Any, index: int, images: Tensor) -> Tensor:
    """Return the input tokens `(B, M, D)` of a block."""
    [(tokens, prefix_tokens)] = model.forward_intermediates(
        images,
        indices=[index - 1],
        return_prefix_tokens=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return torch.cat((prefix_tokens, tokens), dim=1)


def _vit_map(attention: Any, x: Tensor) -> Tensor:
    """Compute the softmaxed map `(B, h, M, M)` of normalized tokens `(B, M, D)`."""
    qk = F.linear(x, *_rows(attention.qkv, 0, 2, 3))
    q, k = qk.unflatten(2, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return (attention.q_norm(q) * attention.scale @ attention.k_norm(k).mT).softmax(dim=-1)


def _rows(linear: nn.Linear, start: int, stop: int, parts: int) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the output parts `start` to `stop` of `parts` equal ones."""
    size = len(linear.weight) // parts
    wanted = slice(start * size, stop * size)
    return linear.weight[wanted], None if linear.bias is None else linear.bias[wanted]


def _values(
    attention_map: Tensor, x: Tensor, prefix: int, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Compute the attention output of the prefix tokens, before the output projection.

    Args:
        attention_map: `(B, h, M, M)`. Each row sums to 1.
        x: Input of the value projection, `(B, M, D)`.
        prefix: P.
        weight: Weight of the value projection, `(A, D)`.
        bias: Bias of the value projection, `(A,)`.

    Returns:
        `(B, P, A)`.
    """
    # Averaging before the projection projects h * P tokens instead of M. The bias can be added
    # afterward, because each row of the map sums to 1.
    heads = attention_map.shape[1]
    means = attention_map[:, :, :prefix].flatten(1, 2) @ x  # (B, h * P, D)
    means, weight = means.unflatten(1, (heads, prefix)), weight.unflatten(0, (heads, -1))
    values = torch.einsum("bhpx,hdx->bphd", means, weight).flatten(2)
    return values if bias is None else values + bias


def _is_plain_vit(model: Any) -> bool:
    """Return True for exact types only: a subclass may use the tokens that the pass skips."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return False
    block = model.blocks[-1]
    return (
        len(model.blocks) > 1
        and model.num_prefix_tokens > 0
        and model.global_pool == "token"
        and model.attn_pool is None
        and type(block) is Block
        and type(block.attn) is Attention
        and type(block.attn.qkv) is nn.Linear
        and type(block.mlp) in (Mlp, GluMlp, SwiGLU)  # others mix tokens
    )


def _is_plain_pvt(model: Any) -> bool:
    """Return True for exact types only. `Backbone` rejects a last stage with pooled keys."""
    return (
        type(model) is PyramidVisionTransformer
        and model.num_prefix_tokens > 0
        and model.global_pool == "token"
    )
