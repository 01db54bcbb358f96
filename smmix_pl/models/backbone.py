"""A timm model as SMMix sees it: class logits, image tokens, a token head and a motivating pass.

B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w image tokens, D width, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, get_args

import torch
from timm.layers import to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from smmix_pl.checks import one_of
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Guide, Readout
from smmix_pl.models.attention import AttentionTap, attention_to_tokens
from smmix_pl.models.guide import find_short_pass, vit_map
from smmix_pl.models.timm_model import ImageSize, args_for_any_size, create_timm_model, token_grid
from smmix_pl.step_timer import span

P = ParamSpec("P")
T = TypeVar("T")


class Features(NamedTuple):
    """What one forward pass gives.

    Attributes:
        logits: Class logits, ``(B, K)``.
        tokens: Image tokens after the final norm, ``(B, N, D)``.
        attention: How much each image token is attended to, ``(B, G_h, G_w)`` float32 without
            gradient, if it was asked for.
    """

    logits: Tensor
    tokens: Tensor
    attention: Tensor | None = None


class Backbone(nn.Module):
    """A timm vision transformer with a token head.

    Args:
        name: Any timm model whose last attention map covers one token grid.
        num_classes: K.
        image_size: (H, W) in pixels.
        token_head: ``own`` is a second linear classifier for region tokens, as in the authors'
            code; ``shared`` lets the class head read them.
        attention: ``tokens``: SMMix's, the mean over the image tokens' queries in the last
            self-attention module; ``class``: the class token's query in the last module.
        guide_precision: ``training`` runs the motivating pass under the training autocast;
            ``float32`` outside it, as the authors do.
        guide_mode: Mode of the motivating pass: ``eval``, or ``train`` with stochastic depth and
            dropout, as in the OpenMixup toolbox.
        pretrained: Load timm's pretrained weights.
        model_args: Further arguments of the timm model, such as ``drop_path_rate``.
        compile: Run the training pass and, of plain ViTs and PVT, the motivating pass through
            `torch.compile`; evaluation, and a pass whose attention is tapped, stay as they are.
        guide_size: Motivate by images of this size in pixels, not exact but cheaper: (H, W) or one
            number for both, best multiples of the patches. Images are resized with antialiasing,
            and the attention back to the grid. Null for ``image_size``.
        guide_block: Motivate by the attention of this block, counted from 0, and run none after it;
            not exact but cheaper. For plain ViTs, and for mixers that read no logits. Null for the
            last block.

    Raises:
        InputError: Unknown model or arguments, an image size that its patches do not divide, no
            attention map over one token grid, or no image tokens.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        image_size: ImageSize,
        token_head: Literal["own", "shared"] = "own",
        attention: Readout = "tokens",
        guide_precision: Literal["training", "float32"] = "training",
        guide_mode: Literal["eval", "train"] = "eval",
        pretrained: bool = False,
        model_args: dict[str, Any] | None = None,
        compile: bool = False,
        guide_size: int | ImageSize | None = None,
        guide_block: int | None = None,
    ) -> None:
        super().__init__()
        one_of("model.token_head", token_head, ("own", "shared"))
        one_of("model.attention", attention, get_args(Readout))
        one_of("model.guide_precision", guide_precision, ("training", "float32"))
        one_of("model.guide_mode", guide_mode, ("eval", "train"))
        model_args = model_args or {}
        if guide_size is not None:
            model_args = args_for_any_size(name) | model_args
        self.model, _ = create_timm_model(name, num_classes, image_size, pretrained, model_args)
        self.readout = attention
        self.guide_precision = guide_precision
        self.guide_mode = guide_mode
        self.compiled = compile
        self.tap = AttentionTap(self.model, attention)
        self.fusable = [module for module in self.model.modules() if _is_fused(module)]
        self.grid, width = self._probe(name, image_size)
        self.guide_size = None if guide_size is None else to_2tuple(guide_size)
        if self.guide_size is not None and min(self.guide_size) < 1:
            raise InputError(f"guide_size is {guide_size}; give pixels, or null for whole images")
        self.guide_grid, _ = self._probe(name, self.guide_size or image_size)
        self.guide_block = self._checked(guide_block)
        if token_head == "own":
            self.token_head: nn.Linear | None = nn.Linear(width, num_classes)
            nn.init.trunc_normal_(self.token_head.weight, std=0.02)
            nn.init.zeros_(self.token_head.bias)
        else:
            self.token_head = None

    def forward(self, images: Tensor) -> Tensor:
        """Class logits ``(B, K)`` of images ``(B, C, H, W)``; all that evaluation needs."""
        self._choose_kernels(images)
        logits: Tensor = self.model(images)
        return logits

    def unused_token_head(self) -> Tensor:
        """A zero that depends on every weight of the token head.

        Added to the loss of a batch without regions, it gives the token head zero gradients instead
        of none: every step then reaches every parameter, as DistributedDataParallel asks for.
        """
        weights = [] if self.token_head is None else list(self.token_head.parameters())
        return sum((0.0 * weight.sum() for weight in weights), start=torch.zeros(()))

    def features(self, images: Tensor, with_attention: bool = False) -> Features:
        """One forward pass over images ``(B, C, H, W)``.

        Args:
            images: Normalized images.
            with_attention: Also read the attention map, for which the last block runs unfused.
        """
        self._choose_kernels(images)
        if not with_attention:
            return self._run(Backbone._features, images)
        with self.tap.record() as maps:
            features = self._features(images)
        return features._replace(attention=self._on_grid(maps[-1], self.grid))

    def region_logits(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token-head logits of the mean token of each region.

        Args:
            tokens: ``(B, N, D)``.
            mask: ``(B, R, N)`` bool, R regions of each image, at least one token in each.

        Returns:
            ``(B, R, K)``.
        """
        means = mask.to(tokens.dtype) @ tokens / mask.sum(dim=2, keepdim=True)  # (B, R, D)
        return self._region_classifier()(means)

    def guide(self, images: Tensor) -> Guide:
        """The motivating pass: the model's own view of unmixed images, without gradient.

        The train or eval mode of every submodule is as before afterwards, also when it raises.

        Args:
            images: ``(B, C, H, W)``.
        """
        if self.guide_size is not None:
            images = F.interpolate(images, self.guide_size, mode="bilinear", antialias=True)
        # Not inference mode, which saves little and whose tensors autograd refuses: what a mixer
        # makes of a guide may go into a loss.
        mode = eval_mode(self.model) if self.guide_mode == "eval" else nullcontext()
        with span("guide"), mode, torch.no_grad(), self._guide_autocast(images.device.type):
            self._choose_kernels(images)
            # The short pass leaves out what its last block drops in train mode
            if self.guide_block is not None or (
                self.guide_mode == "eval" and find_short_pass(self.model) is not None
            ):
                return self._run(Backbone._short_guide, images)
            with self.tap.record() as maps:
                logits = self.model(images)
            return Guide(logits, self._on_grid(maps[-1], self.guide_grid))

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that the timm model asks to keep out of weight decay."""
        names = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else set()
        return {f"model.{name}" for name in names}

    def _choose_kernels(self, images: Tensor) -> None:
        """Fused attention as timm chose it, but not in bf16 on a CPU.

        There torch's fused kernel takes longer than what it saves: see benchmarks/README.md.
        """
        device = images.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else images.dtype
        for module in self.fusable:
            module.fused_attn = device != "cpu" or dtype != torch.bfloat16

    def _features(self, images: Tensor) -> Features:
        features = self.model.forward_features(images)
        tokens = self._image_tokens(features)
        logits = self.model.forward_head(features)
        return Features(logits, self._normalised(tokens))

    def _normalised(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` after the final norm.

        Models that average their tokens first normalize the average, in the head or before it;
        their region tokens are normalized one by one, by the same norm.
        """
        head = getattr(self.model, "head", None)
        norm = getattr(self.model, "fc_norm", None) or getattr(head, "norm", None)
        if isinstance(norm, nn.LayerNorm):  # timm's LayerNorm2d is one, for maps (B, D, h, w)
            return F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return tokens

    def _short_guide(self, images: Tensor) -> Guide:
        if self.guide_block is not None:
            attention = vit_map(self.model, self.guide_block, images)
            return Guide(None, self._on_grid(attention, self.guide_grid))
        short_pass = find_short_pass(self.model)
        assert short_pass is not None
        logits, attention = short_pass(self.model, images)
        return Guide(logits, self._on_grid(attention, self.guide_grid))

    def _run(self, method: Callable[["Backbone", Tensor], T], images: Tensor) -> T:
        # The compiled function is no part of the backbone: copies share it, and the state dict has
        # nothing of it.
        return (compiled(method) if self.compiled else method)(self, images)

    def _on_grid(self, attention: Tensor, grid: ImageSize) -> Tensor:
        """A map over the tokens of some grid, on the training images' grid."""
        received = attention_to_tokens(attention.detach(), grid, self.readout)
        if grid == self.grid:
            return received
        return F.interpolate(received[:, None], self.grid, mode="bilinear")[:, 0]

    def _checked(self, guide_block: int | None) -> int | None:
        if guide_block is None:
            return None
        if not isinstance(self.model, VisionTransformer) or find_short_pass(self.model) is None:
            raise InputError(
                f"guide_block {guide_block} needs a plain ViT that classifies its class token, "
                f"such as DeiT; leave it out for {type(self.model).__name__}"
            )
        last = len(self.model.blocks) - 1
        if not 1 <= guide_block <= last:
            raise InputError(f"guide_block is {guide_block}; choose one of the blocks 1 to {last}")
        return guide_block

    @property
    def _prefix_tokens(self) -> int:
        has_class = getattr(self.model, "cls_token", None) is not None  # VOLO has no number
        return getattr(self.model, "num_prefix_tokens", int(has_class))

    @property
    def _has_class(self) -> bool:
        """Whether the first prefix token is a class token, and not a register."""
        has = getattr(self.model, "cls_token", None) is not None
        return getattr(self.model, "has_class_token", has)

    def _region_classifier(self) -> Any:
        if self.token_head is not None:
            return self.token_head
        head = self.model.get_classifier()
        return head[0] if isinstance(head, tuple) else head  # distilled models have two

    def _guide_autocast(self, device: str) -> torch.autocast:
        # Without a cache: weights cast here carry no gradient, and the training pass under the same
        # autocast must not find them.
        training = torch.is_autocast_enabled(device) and self.guide_precision == "training"
        dtype = torch.get_autocast_dtype(device)
        return torch.autocast(device, dtype=dtype, enabled=training, cache_enabled=False)

    def _image_tokens(self, features: Tensor) -> Tensor:
        """Image tokens ``(B, N, D)`` of what ``forward_features`` returned."""
        if features.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return features.flatten(1, 2) if channels_last else features.flatten(2).mT
        return features[:, self._prefix_tokens :]

    def _probe(self, name: str, image_size: ImageSize) -> tuple[ImageSize, int]:
        """The token grid and the tokens' width, by a forward pass on the meta device."""
        state = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        meta = {f"model.{key}": value.to("meta") for key, value in state.items()}
        channels = self.model.pretrained_cfg["input_size"][0]
        images = torch.empty(1, channels, *image_size, device="meta")
        view = _ForwardFeatures(self.model)
        with eval_mode(self.model), torch.no_grad(), self.tap.record() as maps:
            try:
                features = torch.func.functional_call(view, meta, images)
            except (AssertionError, RuntimeError, ValueError) as error:
                size = f"{image_size[0]} x {image_size[1]}"
                raise InputError(f"{name} cannot read images of {size} pixels: {error}") from error
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise InputError(f"{name} gives no image tokens for the token head to read")
        tokens = self._image_tokens(features)
        stride = self.model.feature_info[-1]["reduction"]
        grid = token_grid(name, stride, tokens.shape[1], image_size)
        prefix = maps[-1].shape[-1] - tokens.shape[1]
        if maps[-1].ndim != 4 or len(maps[-1]) != 1 or prefix not in (0, self._prefix_tokens):
            raise InputError(
                f"{name} cannot motivate SMMix at {image_size[0]} x {image_size[1]} pixels: its "
                f"last attention map, {tuple(maps[-1].shape)} for one image, is not one "
                f"distribution over its {tokens.shape[1]} image tokens"
            )
        if self.readout == "class" and maps[-1].shape[2] > 1 and not (prefix and self._has_class):
            raise InputError(
                f"{name} has no class token whose attention could be read; "
                "set model.attention to tokens"
            )
        return grid, tokens.shape[2]


def _is_fused(module: nn.Module) -> bool:
    return bool(getattr(module, "fused_attn", False))


@cache
def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """`torch.compile` of a function, once."""
    return torch.compile(function)


class _ForwardFeatures(nn.Module):
    """``forward_features`` as a forward, which is what torch.func can call with other weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.forward_features(images)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for the length of a ``with`` block; then every submodule's own mode is back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
