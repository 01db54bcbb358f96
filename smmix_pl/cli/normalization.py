"""Normalization of images as pretrained weights expect it."""

from jsonargparse import Namespace
from timm.models import get_pretrained_cfg

from smmix_pl.cli.run_names import arguments


def normalize_as_pretrained(settings: Namespace) -> None:
    """Fill in the mean and deviation that pretrained weights expect, where they are null."""
    model = arguments(settings.model)
    weights = get_pretrained_cfg(model.backbone) if model.get("pretrained") else None
    if weights is None:
        return
    data = settings.data.init_args
    for name in ("mean", "std"):
        if data.get(name) is None:
            data[name] = getattr(weights, name)
