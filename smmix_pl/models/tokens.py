"""The image tokens of a timm model: their place in its output, their norm, and their similarity.

B batch, D width, N image tokens, P prefix tokens (class, distillation and register tokens, which
timm puts first), h w token grid.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def count_prefix_tokens(model: Any) -> int:
    """Return P."""
    has_class = getattr(model, "cls_token", None) is not None  # VOLO gives no number
    return getattr(model, "num_prefix_tokens", int(has_class))


def has_class_token(model: Any) -> bool:
    """Return True if the first prefix token is a class token rather than a register."""
    has_class = getattr(model, "cls_token", None) is not None
    return getattr(model, "has_class_token", has_class)


def image_tokens(model: Any, features: Tensor) -> Tensor:
    """Return the image tokens `(B, N, D)` of a model's output.

    Args:
        model: A timm model.
        features: Output of its `forward_features`: `(B, P + N, D)`, `(B, D, h, w)`, or
            `(B, h, w, D)`.
    """
    if features.ndim == 4:
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return features.flatten(1, 2) if channels_last else features.flatten(2).mT
    return features[:, count_prefix_tokens(model) :]


def normalized(model: Any, tokens: Tensor) -> Tensor:
    """Apply the final norm to tokens `(B, N, D)` if the model applies it in its head.

    Models that average their tokens normalize the average. Region tokens are normalized one by one,
    by the same norm.
    """
    head = getattr(model, "head", None)
    norm = getattr(model, "fc_norm", None) or getattr(head, "norm", None)
    if isinstance(norm, nn.LayerNorm):  # also timm's LayerNorm2d, for maps (B, D, h, w)
        return F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return tokens


def similarity_to_output(model: Any, features: Tensor) -> Tensor:
    """Compute how similar each image token is to what the model classifies.

    That is the class token or, in models that average their tokens, the mean image token.

    Args:
        model: A timm model.
        features: Output of its `forward_features`, as in `image_tokens`.

    Returns:
        (1 + cosine) / 2 after the final norm, `(B, N)` float32 in [0, 1] without gradient.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        features = features.float()
        tokens = normalized(model, image_tokens(model, features))
        if has_class_token(model) and getattr(model, "global_pool", None) == "token":
            output = normalized(model, features[:, :1])
        else:
            output = tokens.mean(dim=1, keepdim=True)
        return (1 + F.cosine_similarity(output, tokens, dim=2)) / 2
