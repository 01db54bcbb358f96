"""PVT v1: Pyramid Vision Transformer (Wang et al., ICCV 2021, arXiv:2102.12122) for timm.

timm includes PVT v2 only. Importing this module registers `pvt_tiny`, `pvt_small`, `pvt_medium` and
`pvt_large` with timm. Parameters have the names and shapes of the released weights.

B batch, C channels, H W pixels, h w token grid of a stage, N = h * w its image tokens, P its prefix
tokens (1 in the last stage, which has the class token, else 0), D its width, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import PatchEmbed, resample_abs_pos_embed, to_2tuple
from timm.models._builder import build_model_with_cfg
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from timm.models._registry import generate_default_cfgs, register_model
from torch import Tensor, nn

from smmix_pl.errors import InputError
from smmix_pl.models.pvt_layers import EPS, Block, Size, to_map

__all__ = ["PyramidVisionTransformer", "checkpoint_filter_fn"]

POOLS = ("token", "avg", "")


class PyramidVisionTransformer(nn.Module):
    """PVT v1, with stages at strides 4, 8, 16 and 32 and a class token in the last one.

    Accepts images of any size that is divisible by the last stride. If the size differs from
    `img_size`, position embeddings are interpolated in every forward pass, as in the release.

    Args:
        img_size: Image size of the position embeddings in pixels, (H, W) or one number for both.
        patch_size: Pixels per token in the first stage. Each later stage halves the grid.
        in_chans: C.
        num_classes: K. 0 for no head.
        global_pool: `token` classifies the class token, as in the release. `avg` classifies the
            mean image token, `""` every token.
        embed_dims: D of each stage.
        depths: Number of blocks of each stage.
        num_heads: Number of attention heads of each stage.
        mlp_ratios: Hidden width of the MLP divided by D, for each stage.
        sr_ratios: Spatial reduction ratio of keys and values, for each stage.
        qkv_bias: Add a bias to queries, keys and values.
        drop_rate: Dropout rate before the head.
        pos_drop_rate: Dropout rate after the position embedding.
        proj_drop_rate: Dropout rate after attention and in the MLP.
        attn_drop_rate: Dropout rate of attention maps.
        drop_path_rate: Stochastic depth rate of the last block, rising linearly from 0.

    Raises:
        InputError: The image size is not divisible by the last stride, or the pooling is unknown.
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
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_stages = len(depths)
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.num_prefix_tokens = 1
        self.grad_checkpointing = False
        self.strides = [patch_size * 2**stage for stage in range(self.num_stages)]
        self.img_size = self._checked(to_2tuple(img_size))
        self.feature_info = [
            {"num_chs": dim, "reduction": stride, "module": f"block{stage}"}
            for stage, (dim, stride) in enumerate(zip(embed_dims, self.strides, strict=True), 1)
        ]
        # On the CPU, because the rates are read below even if the model is on the meta device.
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        for stage, dim in enumerate(embed_dims):
            patches = (2, embed_dims[stage - 1]) if stage else (patch_size, in_chans)
            rows, columns = self.grid_size(stage)
            positions = torch.empty(1, self._prefix(stage) + rows * columns, dim)
            attention = {
                "num_heads": num_heads[stage],
                "sr_ratio": sr_ratios[stage],
                "qkv_bias": qkv_bias,
                "attn_drop": attn_drop_rate,
            }
            blocks = [
                Block(dim, mlp_ratios[stage], proj_drop_rate, rate, **attention)
                for rate in rates[stage].tolist()
            ]
            embed = PatchEmbed(None, *patches, dim, nn.LayerNorm, output_fmt="NHWC")
            # The released weights have flat, numbered names.
            setattr(self, f"patch_embed{stage + 1}", embed)
            setattr(self, f"pos_embed{stage + 1}", nn.Parameter(positions))
            setattr(self, f"block{stage + 1}", nn.ModuleList(blocks))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.norm: nn.Module = nn.LayerNorm(self.num_features, eps=EPS)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.num_features))
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.apply(_init_linear)  # convolutions keep torch's default, as in the release
        for parameter in self.parameters(recurse=False):  # position embeddings and class token
            nn.init.trunc_normal_(parameter, std=0.02)

    def _checked(self, size: Size) -> Size:
        multiple = self.strides[-1]  # also after pruning, because of sr_ratios
        if size[0] % multiple or size[1] % multiple:
            near = [max(1, round(side / multiple)) * multiple for side in size]
            raise InputError(
                f"data.image_size={size[0]} x {size[1]}: not divisible by the last patch size "
                f"{multiple} of PVT. Use {near[0]} x {near[1]}."
            )
        return size

    def _prefix(self, stage: int) -> int:
        """Return P of a stage."""
        return self.num_prefix_tokens if stage == self.num_stages - 1 else 0

    def grid_size(self, stage: int) -> Size:
        """Return the token grid `(h, w)` of a stage, counted from 0, at `img_size`."""
        return self.img_size[0] // self.strides[stage], self.img_size[1] // self.strides[stage]

    def _positions(self, stage: int, grid: Size) -> Tensor:
        """Return the position embeddings `(1, P + h * w, D)` of a stage for a grid `(h, w)`."""
        positions = getattr(self, f"pos_embed{stage + 1}")
        # The release compares with the grid of the first stage and fails at twice `img_size`.
        return _interpolate(positions, grid, self.grid_size(stage), self._prefix(stage))

    def _stage(self, stage: int, x: Tensor, skip: int = 0) -> tuple[Tensor, Tensor]:
        """Run a stage on its input map `(B, C, H, W)`, without its last `skip` blocks.

        Returns:
            Tokens `(B, P + N, D)`, and the map `(B, D, h, w)` of the image tokens.
        """
        x = getattr(self, f"patch_embed{stage + 1}")(x)
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        if self._prefix(stage):
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.pos_drop(x + self._positions(stage, grid))
        blocks = getattr(self, f"block{stage + 1}")
        for block in blocks[: len(blocks) - skip]:
            x = checkpoint(block, x, grid) if self.grad_checkpointing else block(x, grid)
        return x, to_map(x, grid)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the normalized tokens of the last stage, `(B, P + N, D)`, class token first."""
        self._checked((x.shape[2], x.shape[3]))
        for stage in range(self.num_stages):
            tokens, x = self._stage(stage, x)
        return self.norm(tokens)

    def before_last_block(self, x: Tensor) -> tuple[Tensor, Block]:
        """Return the input `(B, P + N, D)` of the last block, and that block."""
        self._checked((x.shape[2], x.shape[3]))
        for stage in range(self.num_stages):
            last = stage == self.num_stages - 1
            tokens, x = self._stage(stage, x, skip=int(last))
        return tokens, getattr(self, f"block{self.num_stages}")[-1]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return feature maps `(B, D, h, w)` of stages, without the class token.

        Args:
            x: Images, `(B, C, H, W)`.
            indices: Stages: the last n if an int, all if None.
            norm: Normalize the map of the last stage. The other stages have no norm.
            stop_early: Skip the stages after the last selected one.
            output_fmt: `NCHW` only.
            intermediates_only: Return only the maps.

        Returns:
            The tokens of the last stage that ran, as in `forward_features`, and the maps.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt={output_fmt}: not supported by PVT. Use NCHW.")
        self._checked((x.shape[2], x.shape[3]))
        wanted, last = feature_take_indices(self.num_stages, indices)
        maps = []
        for stage in range(last + 1 if stop_early else self.num_stages):
            tokens, x = self._stage(stage, x)
            if stage == self.num_stages - 1:
                tokens = self.norm(tokens)
                x = to_map(tokens, (x.shape[2], x.shape[3])) if norm else x
            if stage in wanted:
                maps.append(x.contiguous())
        return maps if intermediates_only else (tokens, maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map tokens `(B, P + N, D)` to logits `(B, K)`, or to the head's input `(B, D)`."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, self.num_prefix_tokens :].mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return class logits `(B, K)` of images `(B, C, H, W)`."""
        return self.forward_head(self.forward_features(x))

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last selected one, and the class token with the last."""
        wanted, last = feature_take_indices(self.num_stages, indices)
        shortened = last < self.num_stages - 1
        for stage in range(last + 1, self.num_stages):
            for part in ("patch_embed", "pos_embed", "block"):
                delattr(self, f"{part}{stage + 1}")
        if shortened:
            del self.cls_token
            self.num_prefix_tokens = 0
            self.num_stages = last + 1
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if shortened or prune_norm:
            self.norm = nn.Identity()
        if shortened or prune_head:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        """Return the classification head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one, or by none for 0 classes."""
        if global_pool is not None:
            if global_pool not in POOLS:
                raise InputError(
                    f"model.backbone_args.global_pool={global_pool}: unknown pooling. Use one of "
                    f"{', '.join(map(repr, POOLS))}."
                )
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head: nn.Module = nn.Identity()
        if num_classes > 0:
            like = next(self.parameters())
            self.head = nn.Linear(self.num_features, num_classes).to(like.device, like.dtype)
            _init_linear(self.head)
        self.head.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: int | Size) -> None:
        """Interpolate the position embeddings permanently for another image size."""
        size = self._checked(to_2tuple(img_size))
        for stage, stride in enumerate(self.strides[: self.num_stages]):
            positions = self._positions(stage, (size[0] // stride, size[1] // stride)).detach()
            wanted = self.get_parameter(f"pos_embed{stage + 1}").requires_grad
            setattr(self, f"pos_embed{stage + 1}", nn.Parameter(positions, wanted))
        self.img_size = size

    def no_weight_decay(self) -> set[str]:
        """Return the class token. As in the release, position embeddings do decay."""
        return {"cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return layer groups in timm's notation, by stage if coarse, else by block.

        Patch and position embeddings belong to the first block of their stage, and so does the
        class token.
        """
        first = () if coarse else (0,)
        block = r"^block(\d+)" if coarse else r"^block(\d+)\.(\d+)"
        blocks = [
            (block, None),
            (r"^(?:patch|pos)_embed(\d+)", first),
            (r"^cls_token", (self.num_stages, *first)),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^(?:patch|pos)_embed1\b", "blocks": blocks}


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _interpolate(positions: Tensor, grid: Size, old: Size | None, prefix: int) -> Tensor:
    """Interpolate bilinearly without antialiasing, as in the release; `old=None` means square."""
    return resample_abs_pos_embed(
        positions, list(grid), old and list(old), prefix, interpolation="bilinear", antialias=False
    )


def checkpoint_filter_fn(
    state_dict: dict[str, Any], model: PyramidVisionTransformer
) -> dict[str, Any]:
    """Convert the authors' checkpoint to a state dict of this model, without their token head.

    Args:
        state_dict: A checkpoint with the weights under `model`, or the weights.
        model: Position embeddings of another length are resized from a square grid to its grids.
    """
    weights = state_dict.get("model", state_dict)
    weights = {k: v for k, v in weights.items() if not k.startswith("token_head.")}
    for stage in range(model.num_stages):
        name = f"pos_embed{stage + 1}"
        own = model.get_parameter(name)
        if name in weights and weights[name].shape[1] != own.shape[1]:
            prefix = own.shape[1] - model.grid_size(stage)[0] * model.grid_size(stage)[1]
            weights[name] = _interpolate(weights[name], model.grid_size(stage), None, prefix)
    return weights


CFG = {
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
default_cfgs = generate_default_cfgs(
    {name: CFG for name in ("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large")}
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> PyramidVisionTransformer:
    return build_model_with_cfg(
        PyramidVisionTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **kwargs,
    )


@register_model
def pvt_tiny(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Tiny, table 1 of the paper."""
    return _create("pvt_tiny", pretrained, **({"depths": (2, 2, 2, 2)} | kwargs))


@register_model
def pvt_small(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Small, table 1 of the paper."""
    return _create("pvt_small", pretrained, **({"depths": (3, 4, 6, 3)} | kwargs))


@register_model
def pvt_medium(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Medium, table 1 of the paper."""
    return _create("pvt_medium", pretrained, **({"depths": (3, 4, 18, 3)} | kwargs))


@register_model
def pvt_large(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformer:
    """PVT-Large, table 1 of the paper."""
    return _create("pvt_large", pretrained, **({"depths": (3, 8, 27, 3)} | kwargs))
