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
    prefix = model.num_prefix_tokens
    [(tokens, prefix_tokens)] = model.forward_intermediates(
        images,
        indices=[len(model.blocks) - 2],
        return_prefix_tokens=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    x = torch.cat((prefix_tokens, tokens), dim=1)
    block = model.blocks[-1]
    attention = block.attn
    normed = block.norm1(x)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    width = len(weight) // 3  # rows of the queries, the keys, the values
    qk = F.linear(normed, weight[: 2 * width], None if bias is None else bias[: 2 * width])
    q, k = qk.unflatten(2, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    attended, attention_map = _attend(
        attention.q_norm(q) * attention.scale,
        attention.k_norm(k),
        normed,
        prefix,
        weight[2 * width :],
        None if bias is None else bias[2 * width :],
    )
    attended = attention.norm(attended)
    gate = getattr(attention, "gate", None)  # older timm has none
    if gate is not None:
        attended = attended * gate(normed[:, :prefix]).sigmoid()
    x = x[:, :prefix] + block.ls1(attention.proj(attended))
    x = x + block.ls2(block.mlp(block.norm2(x)))
    return model.forward_head(model.norm(x)), attention_map


def pvt_short_pass(model: PyramidVisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """PVT v1's; see `ShortPass`."""
    prefix = model.num_prefix_tokens
    x, block = model.before_last_block(images)
    attention: Any = block.attn
    normed = block.norm1(x)
    weight, bias = attention.kv.weight, attention.kv.bias
    width = len(weight) // 2  # rows of the keys, the values
    k = F.linear(normed, weight[:width], None if bias is None else bias[:width])
    q, k = (
        part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for part in (attention.q(normed), k)
    )
    attended, attention_map = _attend(
        q * attention.scale,
        k,
        normed,
        prefix,
        weight[width:],
        None if bias is None else bias[width:],
    )
    x = x[:, :prefix] + attention.proj(attended)
    x = x + block.mlp(block.norm2(x))
    return model.forward_head(model.norm(x)), attention_map


def _attend(
    q: Tensor, k: Tensor, x: Tensor, prefix: int, v_weight: Tensor, v_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What the prefix tokens take from all tokens, and the whole softmaxed map.

    Args:
        q: Scaled queries, ``(B, h, M, d)``.
        k: Keys, likewise.
        x: What the values are made of, ``(B, M, D)``.
        prefix: P.
        v_weight: Value projection, ``(A, D)``.
        v_bias: Its bias, ``(A,)``.

    Returns:
        ``(B, P, A)``, before the output projection, and ``(B, h, M, M)``.
    """
    heads = q.shape[1]
    attention_map = (q @ k.mT).softmax(dim=-1)
    # Average, then project: h * P projected tokens instead of all M. Rows sum to 1, so the bias
    # comes through as it is.
    rows = attention_map[:, :, :prefix].flatten(1, 2)  # (B, h * P, M)
    means = (rows @ x).unflatten(1, (heads, prefix))
    values = torch.einsum("bhpx,hdx->bphd", means, v_weight.unflatten(0, (heads, -1))).flatten(2)
    return values if v_bias is None else values + v_bias, attention_map


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
