"""A guide pass that merges similar tokens (ToMe: Bolya et al., ICLR 2023), as MergeMix reads it.

After its attention, each block merges some image tokens into their most similar ones. The last
block's attention to the class token, seen from all merged tokens, is the score of a token.

B batch, C channels, H W pixels, h heads, P prefix tokens (class and distillation tokens, which timm
puts first), N image tokens, M tokens left before a block, D width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def merged_pass(model: Any, images: Tensor, merge_ratio: float) -> tuple[Tensor, Tensor]:
    """Run a plain ViT in eval mode, merging tokens.

    Args:
        model: A `VisionTransformer` with a class token.
        images: `(B, C, H, W)`.
        merge_ratio: Fraction of the image tokens to merge into others, in [0, 0.5].

    Returns:
        Class logits `(B, K)`, and how much each image token attends to the class token in the last
        block, `(B, N)` float32.
    """
    prefix = model.num_prefix_tokens
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    places = torch.arange(x.shape[1] - prefix, device=x.device).expand(len(x), -1)
    sizes = torch.ones_like(x[..., :1])
    counts = merge_counts(len(model.blocks), int(merge_ratio * places.shape[1]))
    for index, block in enumerate(model.blocks):
        last = index == len(model.blocks) - 1
        left = x.shape[1] - prefix - counts[index]
        attended, keys, scores = _attention(block.attn, block.norm1(x), last)
        x = x + block.ls1(attended)
        if last:
            scores = scores[:, prefix:].gather(1, places)
        elif counts[index]:
            positions = match(keys[:, prefix:], counts[index])
            x, sizes = merge(x, sizes, positions, prefix, left)
            places = positions.gather(1, places)
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return model.forward_head(model.norm(x)), scores


def merge_counts(blocks: int, total: int) -> list[int]:
    """Return how many tokens each block merges: from 1.5 to 0.5 times their mean, as MergeMix does.

    Args:
        blocks: Number of blocks.
        total: Sum of the counts. The first block takes what rounding leaves.
    """

    def decreasing(mean: int) -> list[int]:
        first = int(mean * 1.5)
        step = 2 * (mean - first) / max(1, blocks - 1)
        return [int(first + step * index) for index in range(blocks)]

    mean = min(range(max(1, total)), key=lambda mean: abs(sum(decreasing(mean)) - total))
    counts = decreasing(mean)
    counts[0] += total - sum(counts)
    return counts


def match(keys: Tensor, count: int) -> Tensor:
    """Choose which tokens are merged into which, by the cosine similarity of their keys.

    Tokens at odd places are merged into tokens at even places, in ToMe's bipartite matching.

    Args:
        keys: Keys of the image tokens, `(B, M, D)`.
        count: Number of tokens to merge, at most half of them.

    Returns:
        Place of each token after merging, `(B, M)` int64 in [0, M - count): first the odd tokens
        that are left, then the even ones.
    """
    keys = F.normalize(keys, dim=2)
    similarity, partner = (keys[:, 1::2] @ keys[:, ::2].mT).max(dim=2)
    order = similarity.argsort(dim=1, descending=True)
    left = order[:, count:].sort(dim=1).values
    places = torch.empty(keys.shape[:2], dtype=torch.long, device=keys.device)
    even, odd = places[:, ::2], places[:, 1::2]  # views
    even[:] = left.shape[1] + torch.arange(even.shape[1], device=keys.device)
    odd.scatter_(1, left, torch.arange(left.shape[1], device=keys.device).expand_as(left))
    merged = order[:, :count]
    odd.scatter_(1, merged, even.gather(1, partner.gather(1, merged)))
    return places


def merge(
    x: Tensor, sizes: Tensor, places: Tensor, prefix: int, left: int
) -> tuple[Tensor, Tensor]:
    """Average the image tokens that share a place, weighted by what they consist of.

    Args:
        x: Prefix and image tokens, `(B, P + M, D)`.
        sizes: Number of original tokens in each, `(B, P + M, 1)`.
        places: Place of each image token after merging, `(B, M)`.
        prefix: P.
        left: Number of image tokens after merging.

    Returns:
        Tokens and their sizes after merging.
    """
    weighted, weights = (x * sizes)[:, prefix:], sizes[:, prefix:]
    index = places[..., None]
    summed = weighted.new_zeros(len(x), left, x.shape[2])
    summed.scatter_add_(1, index.expand_as(weighted), weighted)
    total = weights.new_zeros(len(x), left, 1).scatter_add_(1, index, weights)
    return (
        torch.cat((x[:, :prefix], summed / total), dim=1),
        torch.cat((sizes[:, :prefix], total), dim=1),
    )


def _attention(attention: Any, x: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, the keys (mean over heads), and in the last block, scores `(B, M)`."""
    q, k, v = (
        attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    )
    q, k = attention.q_norm(q), attention.k_norm(k)
    scores = x.new_empty(0)
    if last:
        scores = (q * attention.scale @ k.mT).softmax(dim=-1)[..., 0].mean(1, dtype=torch.float32)
    attended = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    attended = attention.norm(attended.transpose(1, 2).flatten(2))
    gate = getattr(attention, "gate", None)  # absent in older versions of timm
    if gate is not None:
        attended = attended * gate(x).sigmoid()
    return attention.proj(attended), k.mean(dim=1), scores
