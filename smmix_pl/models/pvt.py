"""PVT v1, the Pyramid Vision Transformer of Wang et al., ICCV 2021 (arXiv:2102.12122), for timm.

timm has PVT v2 only. Importing this module registers ``pvt_tiny``, ``pvt_small``, ``pvt_medium`` and
``pvt_large`` with timm; their parameters have the names and shapes of the released weights.

B batch, C channels, H W pixels, h w token grid of a stage, N = h * w its image tokens, P its prefix
tokens (1 in the last stage, which has the class token, else 0), D its width, M keys, K classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, Mlp, resample_abs_pos_embed, to_2tuple, use_fused_attn
from timm.models._builder import build_model_with_cfg
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from timm.models._registry import generate_default_cfgs, register_model
from torch import Tensor, nn

from smmix_pl.errors import InputError

__all__ = ["PyramidVisionTransformer", "checkpoint_filter_fn"]

Size = tuple[int, int]
"""Rows and columns."""

POOLS = ("token", "avg", "")


class PatchEmbed(nn.Module):
    """Non-overlapping patches to normalised tokens, section 3.2 of the paper."""

    def __init__(self, patch_size: int, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)  # torch's eps 1e-5, unlike the blocks: as released

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, h, w, D)``."""
        tokens: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return tokens


class SpatialReductionAttention(nn.Module):
    """Self-attention whose keys and values are tokens pooled ``sr_ratio`` x ``sr_ratio``.

    Section 3.3 of the paper. With ``sr_ratio`` 1 it is plain self-attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise InputError(
                f"embed_dims of PVT has {dim}, which its {num_heads} heads do not divide; "
                f"choose {dim // num_heads * num_heads or num_heads}"
            )
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.fused_attn = bool(use_fused_attn())
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio) if sr_ratio > 1 else None
        self.norm = nn.LayerNorm(dim) if sr_ratio > 1 else None  # torch's eps, as released

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        """``(B, P + N, D)`` to the same shape; ``grid`` is ``(h, w)``."""
        q = self._by_head(self.q(x))
        k, v = (self._by_head(part) for part in self.kv(self._reduce(x, grid)).chunk(2, dim=-1))
        if self.fused_attn:
            drop = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        else:
            attn = (q * self.scale @ k.mT).softmax(dim=-1)  # (B, heads, P + N, M)
            x = self.attn_drop(attn) @ v
        x = self.proj(x.transpose(1, 2).flatten(2))
        return self.proj_drop(x)

    def _by_head(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` to ``(B, heads, L, D / heads)``."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _reduce(self, x: Tensor, grid: Size) -> Tensor:
        """``(B, N, D)`` to ``(B, M, D)``."""
        if self.sr is None or self.norm is None:
            return x
        x = self.norm(self.sr(to_map(x, grid)).flatten(2).mT)
        return x


class Block(nn.Module):
    """Pre-norm transformer block over the tokens of one stage."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        sr_ratio: int,
        qkv_bias: bool,
        proj_drop: float,
        attn_drop: float,
        drop_path: float,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = SpatialReductionAttention(
            dim, num_heads, sr_ratio, qkv_bias, attn_drop, proj_drop
        )
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        """``(B, P + N, D)`` to the same shape; ``grid`` is ``(h, w)``."""
        x = x + self.drop_path1(self.attn(self.norm1(x), grid))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return x


class PyramidVisionTransformer(nn.Module):
    """PVT v1: stages at strides 4, 8, 16 and 32; the last one has a class token.

    Images of any size that the last stride divides are taken: for other sizes than ``img_size`` the
    position embeddings are interpolated in every pass, as released.

    Args:
        img_size: Pixels, rows and columns, that the position embeddings are made for.
        patch_size: Pixels per token of the first stage; each later stage halves the grid.
        in_chans: C.
        num_classes: K; 0 for no head.
        global_pool: ``token`` classifies the class token, as released; ``avg`` the mean image token;
            ``""`` every token.
        embed_dims: D of each stage, as are the next four.
        depths: Blocks.
        num_heads: Attention heads.
        mlp_ratios: Hidden width of the MLP over D.
        sr_ratios: Spatial reduction of keys and values.
        qkv_bias: Give queries, keys and values a bias.
        drop_rate: Dropout before the head. This and the next three are timm's; the release has one
            rate for the next two, and it is 0.
        pos_drop_rate: Dropout after the position embedding.
        proj_drop_rate: Dropout after attention and in the MLP.
        attn_drop_rate: Dropout of attention maps.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        norm_layer: Norm of the blocks and of the final tokens.
    """

    def __init__(
        self,
        img_size: int | Size = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-6),
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_stages = len(depths)
        self.num_prefix_tokens = 1
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.grad_checkpointing = False
        self.patch_size = patch_size
        self.stride = patch_size * 2 ** (self.num_stages - 1)
        self.img_size = self._checked_size(to_2tuple(img_size))
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        for stage, dim in enumerate(embed_dims):
            block = partial(
                Block,
                dim,
                num_heads[stage],
                mlp_ratios[stage],
                sr_ratios[stage],
                qkv_bias,
                proj_drop_rate,
                attn_drop_rate,
                norm_layer=norm_layer,
            )
            # timm's strict loading and the released weights want these names at the top level.
            self.add_module(
                f"patch_embed{stage + 1}",
                PatchEmbed(2, embed_dims[stage - 1], dim)
                if stage
                else PatchEmbed(patch_size, in_chans, dim),
            )
            height, width = self.grid_size(stage)
            positions = torch.zeros(1, self._prefix(stage) + height * width, dim)
            self.register_parameter(f"pos_embed{stage + 1}", nn.Parameter(positions))
            blocks = nn.ModuleList(block(drop_path=rate) for rate in rates[stage].tolist())
            self.add_module(f"block{stage + 1}", blocks)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.norm = norm_layer(self.num_features)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.num_features))
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(num_classes, global_pool)
        self.feature_info = [
            {"num_chs": dim, "reduction": patch_size * 2**stage, "module": f"block{stage + 1}"}
            for stage, dim in enumerate(embed_dims)
        ]
        self._init_weights()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to class logits ``(B, K)``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the last stage's normalised tokens ``(B, P + N, D)``, class first."""
        self._checked_size((x.shape[2], x.shape[3]))
        for stage in range(self.num_stages):
            tokens, grid = self._stage(stage, x)
            x = to_map(tokens, grid)
        return self.norm(tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens ``(B, P + N, D)`` to logits ``(B, K)``, or to the ``(B, D)`` before the head."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, self.num_prefix_tokens :].mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps ``(B, D, h, w)`` of stages, without the class token.

        Args:
            x: Images, ``(B, C, H, W)``.
            indices: Stages: the last n if an int, all if None.
            norm: Normalise the last stage's map; the other stages have no norm.
            stop_early: Do not run the stages after the last wanted one.
            output_fmt: ``NCHW`` only.
            intermediates_only: Leave out the tokens.

        Returns:
            What ``forward_features`` would return (the tokens of the last stage that ran, if
            stopped early) and the maps.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt of PVT is {output_fmt!r}; choose 'NCHW'")
        self._checked_size((x.shape[2], x.shape[3]))
        wanted, last = feature_take_indices(self.num_stages, indices)
        maps = []
        for stage in range(last + 1 if stop_early else self.num_stages):
            tokens, grid = self._stage(stage, x)
            x = to_map(tokens, grid)
            if stage == self.num_stages - 1:
                tokens = self.norm(tokens)
                x = to_map(tokens, grid) if norm else x
            if stage in wanted:
                maps.append(x.contiguous())
        return maps if intermediates_only else (tokens, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last wanted one; with the last stage goes the class token."""
        wanted, last = feature_take_indices(self.num_stages, indices)
        shortened = last < self.num_stages - 1
        for stage in range(last + 1, self.num_stages):
            for part in ("patch_embed", "pos_embed", "block"):
                delattr(self, f"{part}{stage + 1}")
        if shortened:
            self.num_stages = last + 1
            self.num_features = self.head_hidden_size = int(self.feature_info[last]["num_chs"])
            self.num_prefix_tokens = 0
            del self.cls_token
        if shortened or prune_norm:
            self.norm = nn.Identity()
        if shortened or prune_head:
            self.reset_classifier(0, "")
        return list(wanted)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh head, or none for 0 classes."""
        if global_pool is not None and global_pool not in POOLS:
            raise InputError(f"global_pool of PVT is {global_pool!r}; choose one of {POOLS}")
        self.global_pool: str = self.global_pool if global_pool is None else global_pool
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes > 0:
            like = next(self.parameters())
            head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            _init_linear(head)
            self.head = head
        self.head.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: int | Size) -> None:
        """Interpolate the position embeddings once, for images of another size."""
        old = [self.grid_size(stage) for stage in range(self.num_stages)]
        self.img_size = self._checked_size(to_2tuple(img_size))
        for stage in range(self.num_stages):
            name = f"pos_embed{stage + 1}"
            positions = self.get_parameter(name)
            resized = interpolate(
                positions.detach(), self.grid_size(stage), old[stage], self._prefix(stage)
            )
            setattr(self, name, nn.Parameter(resized, requires_grad=positions.requires_grad))

    def grid_size(self, stage: int) -> Size:
        """Token grid ``(h, w)`` of a stage, counted from 0, for images of ``img_size``."""
        side = self.patch_size * 2**stage
        return self.img_size[0] // side, self.img_size[1] // side

    def no_weight_decay(self) -> set[str]:
        """Only the class token: as released, the position embeddings do decay."""
        return {"cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's layer groups: by stage if coarse, else by block.

        A stage's patches and positions go with its first block; the class token with its stage's.
        """
        last = self.num_stages
        stem = r"^(?:patch|pos)_embed1\b"
        if coarse:
            blocks = [(r"^(?:patch_embed|pos_embed|block)(\d+)", None), (r"^cls_token", (last,))]
        else:
            blocks = [
                (r"^block(\d+)\.(\d+)", None),
                (r"^(?:patch|pos)_embed(\d+)", (0,)),
                (r"^cls_token", (last, 0)),
            ]
        return {"stem": stem, "blocks": [*blocks, (r"^norm", (99999,))]}

    def _stage(self, stage: int, x: Tensor) -> tuple[Tensor, Size]:
        """Run a stage on a map ``(B, C, H, W)``: tokens ``(B, P + N, D)`` and their grid."""
        x = self.get_submodule(f"patch_embed{stage + 1}")(x)
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        prefix = self._prefix(stage)
        if prefix:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        positions = self.get_parameter(f"pos_embed{stage + 1}")
        x = self.pos_drop(x + interpolate(positions, grid, self.grid_size(stage), prefix))
        for block in self.get_submodule(f"block{stage + 1}").children():
            x = checkpoint(block, x, grid) if self.grad_checkpointing else block(x, grid)
        return x, grid

    def _prefix(self, stage: int) -> int:
        """P of a stage."""
        return self.num_prefix_tokens if stage == self.num_stages - 1 else 0

    def _checked_size(self, size: Size) -> Size:
        near = [max(1, round(side / self.stride)) * self.stride for side in size]
        if list(size) != near:
            raise InputError(
                f"image size {size[0]} x {size[1]} is not a whole number of PVT's last patches of "
                f"{self.stride} pixels; the nearest that is: {near[0]} x {near[1]}"
            )
        return size

    def _init_weights(self) -> None:
        """As released: linears, positions and class token; convolutions keep torch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _init_linear(module)
        for stage in range(self.num_stages):
            nn.init.trunc_normal_(self.get_parameter(f"pos_embed{stage + 1}"), std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)


def _init_linear(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def to_map(tokens: Tensor, grid: Size) -> Tensor:
    """Tokens ``(B, P + N, D)`` to a map ``(B, D, h, w)`` without the prefix tokens."""
    return tokens[:, tokens.shape[1] - grid[0] * grid[1] :].mT.unflatten(2, grid)


def interpolate(positions: Tensor, grid: Size, old: Size | None, prefix: int) -> Tensor:
    """Position embeddings ``(1, P + N, D)`` for another grid; ``old`` None means a square one.

    Bilinear without antialiasing, as released. The release compares every stage's grid with the
    first stage's, so it fails at twice the training size; we compare with the stage's own.
    """
    return resample_abs_pos_embed(
        positions, list(grid), old and list(old), prefix, interpolation="bilinear", antialias=False
    )


def checkpoint_filter_fn(
    state_dict: dict[str, Any], model: PyramidVisionTransformer
) -> dict[str, Any]:
    """The authors' checkpoint as this model's state dict.

    Args:
        state_dict: A checkpoint with the weights under ``model``, or the weights.
        model: Gives the grids that position embeddings are resized to.
    """
    weights = state_dict.get("model", state_dict)
    weights = {k: v for k, v in weights.items() if not k.startswith("token_head.")}
    for stage in range(model.num_stages):
        name = f"pos_embed{stage + 1}"
        # Of equal length: taken to be of this grid, which need not be square.
        if name in weights and weights[name].shape != model.get_parameter(name).shape:
            prefix = model._prefix(stage)
            weights[name] = interpolate(weights[name], model.grid_size(stage), None, prefix)
    return weights


def _cfg() -> dict[str, Any]:
    return {
        "input_size": (3, 224, 224),
        "fixed_input_size": False,
        "num_classes": 1000,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed1.proj",
        "classifier": "head",
    }


def _create(variant: str, depths: Sequence[int], pretrained: bool, **kwargs: Any) -> Any:
    return build_model_with_cfg(
        PyramidVisionTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{"depths": depths, **kwargs},
    )


default_cfgs = generate_default_cfgs(
    {f"pvt_{size}": _cfg() for size in ("tiny", "small", "medium", "large")}
)


@register_model
def pvt_tiny(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Tiny, table 1 of the paper."""
    return _create("pvt_tiny", (2, 2, 2, 2), pretrained, **kwargs)


@register_model
def pvt_small(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Small, table 1 of the paper."""
    return _create("pvt_small", (3, 4, 6, 3), pretrained, **kwargs)


@register_model
def pvt_medium(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Medium, table 1 of the paper."""
    return _create("pvt_medium", (3, 4, 18, 3), pretrained, **kwargs)


@register_model
def pvt_large(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Large, table 1 of the paper."""
    return _create("pvt_large", (3, 8, 27, 3), pretrained, **kwargs)
