"""Preparation of images as trained weights expect it."""

from pathlib import Path

from jsonargparse import Namespace
from timm.models import get_pretrained_cfg

from smmix_pl.cli.run_names import arguments
from smmix_pl.models.weights import settings_in
from smmix_pl.runs.checkpoint_io import read_checkpoint


def prepare_as_pretrained(settings: Namespace) -> None:
    """Fill in normalization and crop that pretrained weights expect, where they are null."""
    model = arguments(settings.model)
    weights = get_pretrained_cfg(model.backbone) if model.get("pretrained") else None
    if weights is not None:
        _fill_in(settings.data.init_args, weights.mean, weights.std, weights.crop_pct)


def prepare_as_trained(data: Namespace, checkpoint: Path) -> None:
    """Fill in normalization and crop that a run trained its weights with, where they are null.

    Raises:
        InputError: The file is corrupt, or not the checkpoint of an `SMMixModule`.
    """
    content = read_checkpoint(checkpoint)
    trained, prepared = settings_in(content, checkpoint), content.get("prepared")
    crop = prepared.get("crop_pct") if isinstance(prepared, dict) else None
    crop_ratio = crop if isinstance(crop, float) else None
    _fill_in(data.init_args, tuple(trained["mean"]), tuple(trained["std"]), crop_ratio)


def _fill_in(
    data: Namespace, mean: tuple[float, ...], std: tuple[float, ...], crop_ratio: float | None
) -> None:
    for name, value in (("mean", mean), ("std", std)):
        if data.get(name) is None:
            data[name] = value
    transform = data.get("eval_transform")  # datasets of other tasks have none
    if transform is not None and transform.crop_ratio is None:
        transform.crop_ratio = crop_ratio
