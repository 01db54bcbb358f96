"""The motivating pass without what nobody reads: class logits and the last attention map.

Of the last block, SMMix reads the attention map, for which queries and keys of all tokens are
needed, and, through the class head, the prefix tokens that come out. So the prefix tokens alone are
taken through the rest of that block: its values, its MLP, the final norm. This is exact: after its
attention a block treats every token by itself.

B batch, h heads, P prefix tokens (class, distillation and register tokens, which timm puts first),
M = P + N all tokens, D their width, A = h * d the attention's width, K classes.
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
"""A model in eval mode and images ``(B, C, H, W)`` to class logits ``(B, K)`` and the last
softmaxed attention map ``(B, h, M, M)``."""


def find_short_pass(model: nn.Module) -> ShortPass | None:
    """The short motivating pass of a model; None where only its own forward pass is known right."""
    if _is_plain_vit(model):
        return vit_short_pass
    if _is_plain_pvt(model):
        return pvt_short_pass
    return None


def vit_short_pass(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """A plain ViT's; see `ShortPass`."""
    prefix, block = model.num_prefix_tokens, model.blocks[-1]
    attention = block.attn
    x = _vit_before(model, len(model.blocks) - 1, images)
    normed = block.norm1(x)
    attention_map = _vit_map(attention, normed)
    attended = _values(attention_map, normed, prefix, *_rows(attention.qkv, 2, 3, 3))
    attended = attention.norm(attended)
    gate = getattr(attention, "gate", None)  # older timm has none
    if gate is not None:
        attended = attended * gate(normed[:, :prefix]).sigmoid()
    x = x[:, :prefix] + block.ls1(attention.proj(attended))
    x = x + block.ls2(block.mlp(block.norm2(x)))
    return model.forward_head(model.norm(x)), attention_map


def vit_map(model: Any, index: int, images: Tensor) -> Tensor:
    """A plain ViT's softmaxed map ``(B, h, M, M)`` of one block; no block is run after it.

    Args:
        model: A `VisionTransformer` in eval mode.
        index: The block, from 1 on.
        images: ``(B, C, H, W)``.
    """
    block = model.blocks[index]
    return _vit_map(block.attn, block.norm1(_vit_before(model, index, images)))


def pvt_short_pass(model: PyramidVisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """PVT v1's; see `ShortPass`."""
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
    """All tokens ``(B, M, D)`` as they enter a block."""
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
    """The softmaxed map ``(B, h, M, M)`` over normalized tokens ``(B, M, D)``."""
    qk = F.linear(x, *_rows(attention.qkv, 0, 2, 3))
    q, k = qk.unflatten(2, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return (attention.q_norm(q) * attention.scale @ attention.k_norm(k).mT).softmax(dim=-1)


def _rows(linear: nn.Linear, start: int, stop: int, parts: int) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of some of the equal parts that a linear layer projects to."""
    size = len(linear.weight) // parts
    wanted = slice(start * size, stop * size)
    return linear.weight[wanted], None if linear.bias is None else linear.bias[wanted]


def _values(
    attention_map: Tensor, x: Tensor, prefix: int, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """What the prefix tokens take from all tokens, ``(B, P, A)``.

    Args:
        attention_map: ``(B, h, M, M)``, rows sum to 1.
        x: What the values are made of, ``(B, M, D)``.
        prefix: P.
        weight: Value projection, ``(A, D)``.
        bias: Its bias, ``(A,)``.
    """
    # Average, then project: h * P projected tokens instead of all M. As rows sum to 1, the bias
    # comes through as it is.
    heads = attention_map.shape[1]
    means = attention_map[:, :, :prefix].flatten(1, 2) @ x  # (B, h * P, D)
    means, weight = means.unflatten(1, (heads, prefix)), weight.unflatten(0, (heads, -1))
    values = torch.einsum("bhpx,hdx->bphd", means, weight).flatten(2)
    return values if bias is None else values + bias


def _is_plain_vit(model: Any) -> bool:
    """Exact types: a subclass may do something else with what is left out."""
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
    """A last stage with pooled keys needs no thought: its map is no backbone's to begin with."""
    return (
        type(model) is PyramidVisionTransformer
        and model.num_prefix_tokens > 0
        and model.global_pool == "token"
    )
