"""Attention and blocks of PVT v1, with the parameter names of the released weights.

B batch, h w token grid of a stage, N = h * w its image tokens, P its prefix tokens, D its width,
M keys, L tokens.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath, Mlp, use_fused_attn
from torch import Tensor, nn

Size = tuple[int, int]
"""Rows and columns."""

EPS = 1e-6
"""Of the LayerNorms in blocks and at the end; the others use torch's default, as in the release."""


class SpatialReductionAttention(nn.Module):
    """Self-attention with keys and values pooled by `sr_ratio` (section 3.3 of the paper)."""

    def __init__(
        self, dim: int, num_heads: int, sr_ratio: int, qkv_bias: bool, attn_drop: float, drop: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.fused_attn = bool(use_fused_attn())
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim)
        self.sr_ratio = sr_ratio

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        """Map tokens `(B, P + N, D)` to the same shape, given their grid `(h, w)`."""
        q = self._by_head(self.q(x))
        if self.sr_ratio > 1:
            x = self.norm(self.sr(to_map(x, grid)).flatten(2).mT)  # (B, M, D)
        k, v = (self._by_head(part) for part in self.kv(x).chunk(2, dim=-1))
        if self.fused_attn:
            drop = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        else:
            attn = (q * self.scale @ k.mT).softmax(dim=-1)  # (B, heads, P + N, M)
            x = self.attn_drop(attn) @ v
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))

    def _by_head(self, x: Tensor) -> Tensor:
        """Split `(B, L, D)` into heads, `(B, heads, L, D / heads)`."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block over the tokens of one stage."""

    def __init__(
        self, dim: int, mlp_ratio: float, drop: float, drop_path: float, **attention: Any
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = SpatialReductionAttention(dim, drop=drop, **attention)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        """Map tokens `(B, P + N, D)` to the same shape, given their grid `(h, w)`."""
        x = x + self.drop_path1(self.attn(self.norm1(x), grid))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def to_map(tokens: Tensor, grid: Size) -> Tensor:
    """Arrange tokens `(B, P + N, D)` in a map `(B, D, h, w)` without the prefix tokens."""
    return tokens[:, tokens.shape[1] - grid[0] * grid[1] :].mT.unflatten(2, grid)
