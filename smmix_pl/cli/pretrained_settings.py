"""Preparation of images as pretrained weights expect it."""

from jsonargparse import Namespace
from timm.models import get_pretrained_cfg

from smmix_pl.cli.run_names import arguments


def prepare_as_pretrained(settings: Namespace) -> None:
    """Fill in normalization and crop that pretrained weights expect, where they are null."""
    model = arguments(settings.model)
    weights = get_pretrained_cfg(model.backbone) if model.get("pretrained") else None
    if weights is None:
        return
    data = settings.data.init_args
    for name in ("mean", "std"):
        if data.get(name) is None:
            data[name] = getattr(weights, name)
    transform = data.get("eval_transform")  # datasets of other tasks have none
    if transform is not None and transform.crop_ratio is None:
        transform.crop_ratio = weights.crop_pct
