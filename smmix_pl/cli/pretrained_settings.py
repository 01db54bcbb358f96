"""Preparation of images as pretrained weights expect it."""

from jsonargparse import Namespace
from timm.models import get_pretrained_cfg


def prepare_as_pretrained(settings: Namespace) -> None:
    """Fill in normalization and crop that pretrained weights expect, where they are null."""
    weights = get_pretrained_cfg(settings.model.backbone) if settings.model.pretrained else None
    if weights is None:
        return
    data = settings.data.init_args
    for name in ("mean", "std"):
        if data.get(name) is None:
            data[name] = getattr(weights, name)
    if data.eval_transform.crop_ratio is None:
        data.eval_transform.crop_ratio = weights.crop_pct
