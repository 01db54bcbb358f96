"""The features of a timm model: what its class head reads."""

from typing import Any

from torch import Tensor


def pooled_features(model: Any, images: Tensor) -> Tensor:
    """Return the class token after the final norm or, in models without one, the mean token.

    Distilled models average class and distillation token.

    Args:
        model: A timm model.
        images: Normalized images, `(B, C, H, W)`.

    Returns:
        `(B, D)`.
    """
    features: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
    return features
