"""Position embeddings of loaded weights, resampled from the image size they were trained at.

The number of tokens does not determine their grid: 2 x 8 and 4 x 4 both have 16. The image size of
the training is therefore read from the file, given by the user, or known to be square.
"""

from math import isqrt
from pathlib import Path
from typing import Any

from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc, to_2tuple
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.models.pvt import PyramidVisionTransformer
from smmix_pl.models.timm_model import HoldsModel, ImageSize

NAMES = ("pos_embed", "patch_pos")
RELATIVE_TABLE = "relative_position_bias_table"


def find_source_size(
    backbone: HoldsModel, weights: dict[str, Tensor], path: str | Path
) -> ImageSize | None:
    """Return the image size of weights that do not state it, if their grid must be square.

    The grid is square if the model's own grid is, as in all public releases, or if the weights have
    the grid of the pretrained model. None if they have no position embeddings.

    Raises:
        InputError: The grid could be another one.
    """
    own, size = backbone.model.state_dict(), embedded_image_size(backbone)
    square = size[0] == size[1]
    strides = {k: v for k, v in _strides(backbone.model).items() if _is_sequence(weights.get(k))}
    if not strides:
        if square or not any(name.endswith(RELATIVE_TABLE) for name in weights):
            return None
        raise _unknown_size(path, "relative position tables")
    name, stride = list(strides.items())[-1]
    tokens, positions = _tokens(size, stride), weights[name].shape[1]
    count = positions - (own[name].shape[1] - tokens)
    side = isqrt(max(count, 0))
    default = backbone.model.pretrained_cfg["input_size"][1:]
    pretrained = count == _tokens(default, stride) != tokens and default[0] == default[1]
    if side > 0 and side**2 == count and (square or pretrained):
        return (side * stride, side * stride)
    raise _unknown_size(path, f"{name} with {positions} positions")


def resample_positions(
    backbone: HoldsModel, weights: dict[str, Tensor], source: ImageSize | None, path: str | Path
) -> dict[str, Tensor]:
    """Return the position embeddings and tables of weights, resampled to the model's image size.

    Relative position tables of two square image sizes are not included: timm resamples these.

    Args:
        backbone: The model that the weights are for.
        weights: Weights under timm's names.
        source: Image size that they were trained at, from the file, the user, or
            `find_source_size`.
        path: File of the weights, for errors.

    Raises:
        InputError: The weights do not fit the image size, or cannot be resampled.
    """
    model, own, size = backbone.model, backbone.model.state_dict(), embedded_image_size(backbone)
    found = {}
    # PVT interpolates as in its release, all others as in timm.
    pvt = isinstance(model, PyramidVisionTransformer)
    options: dict[str, Any] = {"interpolation": "bilinear", "antialias": False} if pvt else {}
    for name, stride in _strides(model).items():
        if name not in weights or name not in own:
            continue
        value = weights[name]
        if value.ndim == own[name].ndim == 4:  # (1, h, w, D) of VOLO has its grid in the shape
            found[name] = resample_abs_pos_embed_nhwc(value, list(own[name].shape[1:3]))
        elif source is not None and _is_sequence(value):
            prefix = own[name].shape[1] - _tokens(size, stride)
            if value.shape[1] != prefix + _tokens(source, stride):
                raise InputError(
                    f"{path}: {name} has {value.shape[1]} positions, but images of {source[0]} x "
                    f"{source[1]} pixels give {prefix + _tokens(source, stride)}. Set "
                    "model.init_image_size and model.backbone to those of the file."
                )
            old, new = _grid(source, stride), _grid(size, stride)
            found[name] = (
                value
                if old == new
                else resample_abs_pos_embed(value, list(new), list(old), prefix, **options)
            )
    for name in [name for name in weights.keys() & own if name.endswith(RELATIVE_TABLE)]:
        if source is None or (source[0] == source[1] and size[0] == size[1]):
            continue
        if source != size or weights[name].shape != own[name].shape:
            raise InputError(
                f"{path}: relative position tables cannot be resampled from images of {source[0]} "
                f"x {source[1]} pixels to {size[0]} x {size[1]}. Set data.image_size to "
                f"[{source[0]}, {source[1]}], or use square images for both."
            )
        found[name] = weights[name]
    return found


def embedded_image_size(backbone: HoldsModel) -> ImageSize:
    """Return the image size that the model's position embeddings are for."""
    model = backbone.model
    patches = getattr(model, "patch_embed", None)
    size = getattr(model, "img_size", None) or getattr(patches, "img_size", None)
    if size is None:
        stride = model.feature_info[-1]["reduction"]
        return (backbone.grid[0] * stride, backbone.grid[1] * stride)
    rows, columns = to_2tuple(size)
    return (rows, columns)


def _strides(model: Any) -> dict[str, int]:
    """Return the pixels per token of each learned position embedding."""
    if isinstance(model, PyramidVisionTransformer):
        return {f"pos_embed{stage}": stride for stage, stride in enumerate(model.strides, 1)}
    stride = model.feature_info[-1]["reduction"]
    return {name: stride for name in NAMES if isinstance(getattr(model, name, None), Tensor)}


def _is_sequence(value: Tensor | None) -> bool:
    """Return True for embeddings `(1, P + N, D)`, whose grid is not in their shape."""
    return value is not None and value.ndim == 3


def _grid(size: ImageSize, stride: int) -> ImageSize:
    return (size[0] // stride, size[1] // stride)


def _tokens(size: ImageSize, stride: int) -> int:
    rows, columns = _grid(size, stride)
    return rows * columns


def _unknown_size(path: str | Path, positions: str) -> InputError:
    return InputError(
        f"{path}: the image size that these weights ({positions}) were trained at is unknown. Set "
        "model.init_image_size to it, such as [64, 128]."
    )
