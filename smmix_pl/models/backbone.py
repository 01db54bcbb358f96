"""A timm model as SMMix uses it: class logits, image tokens, a token head, and a guide pass.

Shapes: B batch, C channels, H W pixels, G_h G_w token grid, N = G_h * G_w image tokens, D width, K
classes.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import torch
from timm.layers import to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from smmix_pl.checks import one_of
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Guide, Readout
from smmix_pl.models.attention import AttentionTap, attention_to_tokens, check_map
from smmix_pl.models.guide import find_short_pass, vit_map
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.timm_model import (
    ImageSize,
    args_for_any_size,
    create_timm_model,
    eval_mode,
    layer_numbers,
    model_name,
    token_grid,
)
from smmix_pl.models.token_merging import merged_pass
from smmix_pl.models.tokens import image_tokens, normalized, similarity_to_output
from smmix_pl.step_timer import span

P = ParamSpec("P")
T = TypeVar("T")


class Features(NamedTuple):
    """Output of a training pass.

    Attributes:
        logits: Class logits, `(B, K)`.
        tokens: Image tokens after the final norm, `(B, N, D)`.
        attention: Attention that each image token receives, or its similarity, `(B, G_h, G_w)`
            float32 without gradient. None unless requested.
        distillation_logits: Logits of the distillation token, `(B, K)`, from a distilled model that
            trains both of its heads (timm's `set_distilled_training`), else None.
    """

    logits: Tensor
    tokens: Tensor
    attention: Tensor | None = None
    distillation_logits: Tensor | None = None


class Backbone(nn.Module):
    """A timm vision transformer with a token head.

    Args:
        model: Name of a timm model, or a model created by timm. Its last attention map must cover
            one token grid, unless similarity guides.
        num_classes: Number of classes, K. Required for a name; a model brings its own.
        image_size: (height, width) in pixels, or one number for both.
        token_head: `own` is a second linear classifier for the tokens of a region, as in the
            authors' code. `shared` uses the class head.
        guide: Settings of the guide pass.
        pretrained: Load timm's pretrained weights. For a name.
        model_args: Further arguments of `timm.create_model`, such as `drop_path_rate`. For a name.
        compile: Run the training pass through `torch.compile`, and the guide pass of plain ViTs, of
            PVT, and by similarity. Evaluation and passes whose attention is read are not compiled.

    Raises:
        InputError: Unknown model or arguments, an image size that the patch size does not divide,
            or a model without image tokens or without an attention map over one token grid.

    Example:
        >>> backbone = Backbone("deit_tiny_patch16_224", num_classes=100)
        >>> backbone(torch.randn(2, 3, 224, 224)).shape
        torch.Size([2, 100])
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int | None = None,
        image_size: int | ImageSize = 224,
        *,
        token_head: Literal["own", "shared"] = "own",
        guide: GuideConfig = GuideConfig(),
        pretrained: bool = False,
        model_args: dict[str, Any] | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        one_of("model.token_head", token_head, ("own", "shared"))
        size: ImageSize = to_2tuple(image_size)
        if isinstance(model, str):
            if num_classes is None:
                raise InputError(f"Backbone({model!r}): num_classes is missing. Pass it.")
            any_size = {} if guide.size is None else args_for_any_size(model)
            args = any_size | (model_args or {})
            self.model, _ = create_timm_model(model, num_classes, size, pretrained, args)
        else:
            self.model = model
        self.guide_config = guide
        self.readout: Readout = guide.readout or "tokens"
        self.compiled = compile
        self.recomputes = False
        reads_map = self.readout not in ("similarity", "merged")
        self.tap = AttentionTap(self.model, self.readout) if reads_map else None
        self.fusable = [module for module in self.model.modules() if _is_fused(module)]
        self.grid, width = self._probe(size)
        self.guide_size = None if guide.size is None else to_2tuple(guide.size)
        self.guide_grid, _ = self._probe(self.guide_size or size)
        if self.readout == "merged":
            self._check_plain_vit("model.guide.readout=merged")
        self._check_guide_block(guide.block)
        self.token_head: nn.Linear | None = None
        if token_head == "own":
            self.token_head = nn.Linear(width, self.model.num_classes)
            nn.init.trunc_normal_(self.token_head.weight, std=0.02)
            nn.init.zeros_(self.token_head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits `(B, K)` of normalized images `(B, C, H, W)`."""
        self._choose_kernels(images)
        return mean_logits(self.model(images))

    def checkpoint_gradients(self) -> None:
        """Recompute the activations of each block in the backward pass, which saves memory.

        Raises:
            InputError: The timm model does not support it.
        """
        try:
            self.model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise InputError(
                f"model.grad_checkpointing=true: {model_name(self.model)} does not support it. Set "
                "it to false."
            ) from error
        self.recomputes = True

    def unused_token_head(self) -> Tensor:
        """Return a zero that depends on every weight of the token head.

        Added to the loss of a batch without regions, it gives the token head zero gradients instead
        of none, so that every step reaches every parameter, as DistributedDataParallel requires.
        """
        weights = [] if self.token_head is None else list(self.token_head.parameters())
        return sum((0.0 * weight.sum() for weight in weights), start=torch.zeros(()))

    def features(self, images: Tensor, with_attention: bool = False) -> Features:
        """Run the training pass.

        Args:
            images: Normalized images, `(B, C, H, W)`.
            with_attention: Also return attention or similarity, whichever guides. For attention,
                the last block runs unfused.
        """
        self._choose_kernels(images)
        if not with_attention:
            return self._run(Backbone._features, images)
        if self.recomputes:
            raise InputError(
                "model.grad_checkpointing=true: the mixer reads attention of the training pass, "
                "whose recomputation would differ. Set it to false, or use another mixer."
            )
        if self.readout == "merged":
            raise InputError(
                "model.guide.readout=merged: reads unmixed images, but the mixer needs attention of"
                " the mixed ones. Use another readout."
            )
        if self.tap is None:
            features, similarity = self._run(Backbone._features_and_similarity, images)
            return features._replace(attention=similarity.unflatten(1, self.grid))
        with self.tap.record() as maps:
            features = self._features(images)
        return features._replace(attention=self._on_grid(maps[-1], self.grid))

    def region_logits(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return token-head logits of the mean token of each region.

        Args:
            tokens: `(B, N, D)`.
            mask: `(B, N)` bool for one region per image, or `(B, R, N)` for R of them. Each region
                has at least one token.

        Returns:
            `(B, K)` or `(B, R, K)`.
        """
        if mask.ndim == 2:
            return self.region_logits(tokens, mask[:, None])[:, 0]
        means = mask.to(tokens.dtype) @ tokens / mask.sum(dim=2, keepdim=True)  # (B, R, D)
        return self._region_classifier()(means)

    def guide(self, images: Tensor) -> Guide:
        """Run the guide pass: the model looks at unmixed images, without gradient.

        The train or eval mode of every submodule is restored afterward, also after an exception.

        Args:
            images: Normalized images, `(B, C, H, W)`.
        """
        config = self.guide_config
        if self.guide_size is not None:
            # in float32, because the CPU kernel has no bfloat16
            small = F.interpolate(images.float(), self.guide_size, mode="bilinear", antialias=True)
            images = small.to(images.dtype)
        # Not inference mode: it saves little, and a mixer may put what it computes from the guide
        # into a loss, where autograd rejects inference tensors.
        mode = eval_mode(self.model) if config.mode == "eval" else nullcontext()
        with span("guide"), mode, torch.no_grad(), self._guide_autocast(images.device.type):
            self._choose_kernels(images)
            if self.readout == "merged":
                logits, scores = merged_pass(self.model, images, config.merge_ratio)
                return Guide(logits, self._resized(scores.unflatten(1, self.guide_grid)))
            if self.tap is None:
                features, similarity = self._run(Backbone._features_and_similarity, images)
                return Guide(
                    features.logits, self._resized(similarity.unflatten(1, self.guide_grid))
                )
            # The short pass skips parts of the last block that train mode would drop at random
            short = config.mode == "eval" and find_short_pass(self.model) is not None
            short = short and self.readout != "rollout"  # which needs the maps of all blocks
            if config.block is not None or short:
                return self._run(Backbone._short_guide, images)
            with self.tap.record() as maps:
                logits = mean_logits(self.model(images))
            return Guide(logits, self._on_grid(maps[-1], self.guide_grid))

    def input_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the cross entropy at each pixel, `(B, C, H, W)`, in eval mode.

        Args:
            images: Normalized images, `(B, C, H, W)`, not mixed.
            labels: Soft labels, `(B, K)`.
        """
        autocast = self._guide_autocast(images.device.type)
        with span("guide"), eval_mode(self.model), torch.enable_grad(), autocast:
            leaf = images.detach().requires_grad_()
            loss = F.cross_entropy(self(leaf).float(), labels, reduction="sum")
            [gradient] = torch.autograd.grad(loss, leaf)
        return gradient

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that the timm model excludes from weight decay."""
        names = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else set()
        return {f"model.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return timm's function from the name of a parameter to its layer; heads come last."""
        layers = layer_numbers(self.model, coarse)
        last = max(layers.values())
        return lambda name: layers.get(name.removeprefix("model."), last)

    def _choose_kernels(self, images: Tensor) -> None:
        """Use fused attention as timm chose it, except in bf16 on a CPU.

        There, the fused kernel takes longer than the matrices it saves.
        """
        device = images.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else images.dtype
        for module in self.fusable:
            module.fused_attn = device != "cpu" or dtype != torch.bfloat16

    def _features(self, images: Tensor) -> Features:
        return self._read(self.model.forward_features(images))

    def _features_and_similarity(self, images: Tensor) -> tuple[Features, Tensor]:
        features = self.model.forward_features(images)
        return self._read(features), similarity_to_output(self.model, features)

    def _read(self, features: Tensor) -> Features:
        """Read logits and image tokens from the output of `forward_features`."""
        tokens = normalized(self.model, image_tokens(self.model, features))
        logits = self.model.forward_head(features)
        if isinstance(logits, tuple):
            return Features(logits[0], tokens, distillation_logits=logits[1])
        return Features(logits, tokens)

    def _short_guide(self, images: Tensor) -> Guide:
        if self.guide_config.block is not None:
            attention = vit_map(self.model, self.guide_config.block, images)
            return Guide(None, self._on_grid(attention, self.guide_grid))
        short_pass = find_short_pass(self.model)
        assert short_pass is not None
        logits, attention = short_pass(self.model, images)
        return Guide(logits, self._on_grid(attention, self.guide_grid))

    def _run(self, method: Callable[["Backbone", Tensor], T], images: Tensor) -> T:
        # The compiled function is not part of the module: copies share it, and the state dict does
        # not contain it.
        return (compiled(method) if self.compiled else method)(self, images)

    def _on_grid(self, attention: Tensor, grid: ImageSize) -> Tensor:
        """Return the attention that the tokens of a grid receive, on the training grid."""
        return self._resized(attention_to_tokens(attention.detach(), grid, self.readout))

    def _resized(self, received: Tensor) -> Tensor:
        """Resize values of image tokens `(B, h, w)` to the token grid of the training images."""
        if received.shape[1:] == self.grid:
            return received
        return F.interpolate(received[:, None], self.grid, mode="bilinear")[:, 0]

    def _check_guide_block(self, block: int | None) -> None:
        if block is None:
            return
        self._check_plain_vit(f"model.guide.block={block}")
        last = len(self.model.blocks) - 1
        if not 1 <= block <= last:
            raise InputError(f"model.guide.block={block}: must be in [1, {last}].")

    def _check_plain_vit(self, option: str) -> None:
        if not isinstance(self.model, VisionTransformer) or find_short_pass(self.model) is None:
            raise InputError(
                f"{option}: {type(self.model).__name__} is not a plain ViT that classifies its "
                "class token, such as DeiT. Remove the option."
            )

    @property
    def class_head(self) -> nn.Module:
        """The head for class logits, the first one of a distilled model."""
        head = self.model.get_classifier()
        classifier: nn.Module = head[0] if isinstance(head, tuple) else head
        return classifier

    def _region_classifier(self) -> nn.Module:
        return self.class_head if self.token_head is None else self.token_head

    def _guide_autocast(self, device: str) -> torch.autocast:
        # Without a cache: weights that are cast here carry no gradient, and the training pass under
        # the same autocast must not reuse them.
        training = torch.is_autocast_enabled(device) and self.guide_config.precision == "training"
        dtype = torch.get_autocast_dtype(device)
        return torch.autocast(device, dtype=dtype, enabled=training, cache_enabled=False)

    def _probe(self, image_size: ImageSize) -> tuple[ImageSize, int]:
        """Return the token grid and the token width, by a forward pass on the meta device."""
        name = model_name(self.model)
        size = f"{image_size[0]} x {image_size[1]}"
        state = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        meta = {f"model.{key}": value.to("meta") for key, value in state.items()}
        channels = self.model.pretrained_cfg["input_size"][0]
        images = torch.empty(1, channels, *image_size, device="meta")
        view = _ForwardFeatures(self.model)
        recorded = nullcontext() if self.tap is None else self.tap.record()
        with eval_mode(self.model), torch.no_grad(), recorded as maps:
            try:
                features = torch.func.functional_call(view, meta, images)
            except (AssertionError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"data.image_size={size}: {name} rejects images of this size ({error}). Set "
                    "data.image_size or model.backbone_args."
                ) from error
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise InputError(
                f"model.backbone={name}: has no image tokens for the token head. Choose a vision "
                "transformer such as deit_tiny_patch16_224."
            )
        tokens = image_tokens(self.model, features)
        grid = token_grid(
            name, self.model.feature_info[-1]["reduction"], tokens.shape[1], image_size
        )
        if maps is not None:
            check_map(maps[-1], self.model, tokens.shape[1], self.readout, image_size)
        return grid, tokens.shape[2]


def mean_logits(logits: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of what the two heads of a distilled model predict, as in its evaluation."""
    return (logits[0] + logits[1]) / 2 if isinstance(logits, tuple) else logits


def _is_fused(module: nn.Module) -> bool:
    return bool(getattr(module, "fused_attn", False))


@cache
def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function compiled by `torch.compile`, once per function."""
    # Not dynamic: one batch of another size would make all later training batches so
    return torch.compile(function, dynamic=False)


class _ForwardFeatures(nn.Module):
    """`forward_features` as `forward`, which `torch.func` can call with other weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.forward_features(images)
