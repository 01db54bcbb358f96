"""Loading weights: files of the authors, backbone releases, timm weights and own checkpoints.

No code in a file is run: torch opens files as weights only.
"""

import json
import re
import sys
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.layers import to_2tuple
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.position_embeddings import (
    embedded_image_size,
    find_source_size,
    resample_positions,
)
from smmix_pl.models.timm_model import HoldsModel, ImageSize

Weights = dict[str, Tensor]
TokenHeadInit = Literal["fresh", "class_head"]

SETTINGS = {"backbone", "backbone_args", "image_size", "num_classes", "mean", "std"}
"""Settings of the model that every own checkpoint contains."""

WRAPPERS = ("state_dict", "model")
"""Keys under which a file stores its weights. Never `model_ema`: the authors' code writes an EMA
that it never updates. In Lightning checkpoints with an EMA, `state_dict` is the average."""


def load_weights(
    backbone: HoldsModel,
    path: str | Path,
    token_head: TokenHeadInit = "fresh",
    image_size: ImageSize | None = None,
) -> str:
    """Initialize a backbone from a file, as far as the weights fit.

    Position embeddings and tables of another image size are resampled. A class head for another
    number of classes is not loaded. The `pretrained_cfg` of the timm model is set to what the
    weights were trained with: mean and std if the file states them, and the classes of the loaded
    head, 0 without one.

    Args:
        backbone: Receives the weights.
        path: A `.safetensors` file, or one of torch's (`.pth`, `.pt`, `.ckpt`).
        token_head: Initialization of the token head if the file has no fitting one: `fresh`, or a
            copy of the loaded `class_head`.
        image_size: Image size in pixels, (H, W), that the weights were trained at. Null reads it
            from the file, or assumes square images where that is safe.

    Returns:
        One line about which tensors were loaded and which were not.

    Raises:
        InputError: The file is missing or corrupt, contains another model, or has position
            embeddings of an unknown image size.
    """
    content = open_checkpoint(path)
    weights = weights_in(content, path)
    head = {name: value for name, value in weights.items() if name.startswith("token_head.")}
    body = {name: value for name, value in weights.items() if name not in head}
    stated = _preparation_in(content, path)
    own_size = stated.pop("image_size", None)
    source = image_size or own_size or find_source_size(backbone, body, path)
    found = _adapt(backbone, body, source, path)
    own = backbone.model.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
    _check_fit(backbone.model, found, fitting, path)
    backbone.model.load_state_dict(fitting, strict=False)
    has_head = any(_in_head(backbone.model, name) for name in fitting)
    classes = backbone.model.num_classes if has_head else 0
    backbone.model.pretrained_cfg.update(stated, num_classes=classes)
    origin = _init_token_head(backbone, head, has_head, token_head)
    size = embedded_image_size(backbone)
    resampled = ""
    if source is not None and source != size:
        resampled = (
            f", position embeddings resampled from {source[0]} x {source[1]} to {size[0]} x "
            f"{size[1]} pixels"
        )
    return (
        f"{path}: loaded {len(fitting)} of {len(own)} tensors into {type(backbone.model).__name__}"
        f"{resampled}; token head: {origin}; unused in the file: "
        f"{_listed(found.keys() - fitting)}; not in the file: {_listed(own.keys() - fitting)}"
    )


def weights_in(content: Any, path: str | Path) -> Weights:
    """Return the weights of the backbone, under timm's names and `token_head.`.

    Args:
        content: Content of the file, from `open_checkpoint`.
        path: File name, for errors.

    Raises:
        InputError: The file contains no weights, or corrupt ones.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {
        # DistributedDataParallel and torch.compile add these prefixes.
        name.removeprefix("module.").replace("_orig_mod.", ""): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, Tensor) and isinstance(name, str)
    }
    if not tensors:
        raise InputError(
            f"{path}: no weights found. Pass a state dict, or a checkpoint that contains one."
        )
    check_finite_weights(tensors, path)
    ours = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return {name.removeprefix("model."): value for name, value in (ours or tensors).items()}


def settings_in(content: Any, path: str | Path) -> dict[str, Any]:
    """Return the arguments of the `SMMixModule` in a checkpoint.

    Args:
        content: Content of the file, from `open_checkpoint`.
        path: File name, for errors.

    Raises:
        InputError: The file is not a checkpoint of `SMMixModule`.
    """
    settings = content.get("hyper_parameters") if isinstance(content, dict) else None
    if (
        not isinstance(settings, dict)
        or not settings.keys() >= SETTINGS
        or not _are_valid(settings)
    ):
        raise InputError(
            f"{path}: not a checkpoint of SMMixModule. Pass a .ckpt file written by `smmix fit`."
        )
    return settings


def _preparation_in(content: Any, path: str | Path) -> dict[str, Any]:
    """Return `image_size`, `mean`, and `std` of the training images, as far as the file has them.

    Checkpoints of `SMMixModule` have them in their settings, exported `.safetensors` files in their
    metadata.
    """
    stated: dict[str, Any] = {}
    if Path(path).suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        try:
            stated = json.loads(metadata.get("pretrained_cfg", "{}"))
            stated["image_size"] = stated.get("input_size", ())[1:]
        except (AttributeError, TypeError, ValueError):
            return {}
    elif isinstance(content, dict) and isinstance(content.get("hyper_parameters"), dict):
        stated = dict(content["hyper_parameters"])
        args = stated.get("backbone_args")
        if isinstance(args, dict) and "img_size" in args:
            stated["image_size"] = to_2tuple(args["img_size"])
    checks = {"image_size": _is_image_size, "mean": _are_numbers, "std": _are_numbers}
    return {k: tuple(stated[k]) for k, is_valid in checks.items() if is_valid(stated.get(k))}


def _is_image_size(size: Any) -> bool:
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(isinstance(side, int) and side > 0 for side in size)
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, int | float) for value in values
    )


def _are_valid(settings: Mapping[str, Any]) -> bool:
    """Return True if settings have the types that `SMMixModule` writes."""
    return (
        isinstance(settings["backbone"], str)
        and isinstance(settings["backbone_args"], dict | None)
        and isinstance(settings["num_classes"], int)
        and 1 < settings["num_classes"] < 10**6
        and _is_image_size(settings["image_size"])
        and _are_numbers(settings["mean"])
        and _are_numbers(settings["std"])
        and len(settings["mean"]) == len(settings["std"]) > 0
    )


def check_finite_weights(weights: Mapping[str, Any], path: str | Path) -> None:
    """Check that all weights are tensors of finite real numbers.

    Args:
        weights: Tensors by name.
        path: File name, for errors.

    Raises:
        InputError: One of them is not.
    """
    for name, value in weights.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        if not plain or value.is_complex() or value.is_quantized or value.is_meta:
            kind = value.dtype if plain else getattr(value, "layout", type(value).__name__)
            raise InputError(
                f"{path}: corrupt file ({name} is {kind}, expected floating point). Download or "
                "export it again."
            )
        if not bool(value.isfinite().all()):
            raise InputError(f"{path}: {name} contains NaN or infinity. Use an earlier checkpoint.")


def open_checkpoint(path: str | Path) -> Any:
    """Open a file of weights without running code from it.

    Args:
        path: A `.safetensors` file, or one of torch's (`.pth`, `.pt`, `.ckpt`).

    Raises:
        InputError: The file is missing or corrupt.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: file not found. Pass an existing .safetensors, .pth, .pt or .ckpt file."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_stored(path)
        # The training scripts of DeiT and of the authors store their command line in the file.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for corrupt files
        message = str(error).strip() or type(error).__name__
        # The first line of torch's message suggests loading the file unsafely.
        cause = re.search(r"GLOBAL [\w.]+|(?<=WeightsUnpickler error: )\s*.+", message)
        reason = (cause[0] if cause else message).strip().splitlines()[0]
        raise InputError(
            f"{path}: cannot be opened as weights, because it is truncated, has another format, or "
            f"contains code, which is never run ({reason[:200]}). Download or export it again."
        ) from error


def _check_stored(path: Path) -> None:
    """Reject compressed zip members, which torch never writes, and members with a bad checksum."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed, {member.file_size} bytes")
        if (corrupt := members.testzip()) is not None:  # torch does not compare checksums
            raise ValueError(f"wrong checksum of {corrupt}")


def _adapt(
    backbone: HoldsModel, weights: Weights, source: ImageSize | None, path: str | Path
) -> Weights:
    """Convert weights of an original release to timm's names, and to this model's image size."""
    # timm defines the conversion of each family in the module of its model, under this name.
    module = sys.modules[type(backbone.model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", lambda weights, _: weights)
    try:
        positions = resample_positions(backbone, weights, source, path)
        rest = {name: value for name, value in weights.items() if name not in positions}
        return dict(convert(rest, backbone.model)) | positions
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(_another_model(path, backbone.model, str(error))) from error


def _check_fit(model: Any, found: Weights, fitting: Weights, path: str | Path) -> None:
    """Reject weights with other shapes outside of the head, or with few common names."""
    own = {name: value for name, value in model.state_dict().items() if not _in_head(model, name)}
    for name in sorted(found.keys() & own):
        if name not in fitting:
            there, here = tuple(found[name].shape), tuple(own[name].shape)
            reason = f"{name} has shape {there}, expected {here}"
            raise InputError(_another_model(path, model, reason))
        if own[name].is_floating_point() and not found[name].is_floating_point():
            reason = f"{name} has dtype {found[name].dtype}, expected floating point"
            raise InputError(_another_model(path, model, reason))
    common = len(fitting.keys() & own)
    if 2 * common < len(own):
        reason = f"it contains {common} of {len(own)} tensors"
        raise InputError(_another_model(path, model, reason))


def _init_token_head(
    backbone: HoldsModel, head: Weights, has_class_head: bool, init: TokenHeadInit
) -> str:
    """Initialize the token head and return its origin."""
    own = backbone.token_head
    if own is None:
        return "shared with the class head"
    found = {name.removeprefix("token_head."): value for name, value in head.items()}
    if _shapes(found) == _shapes(own.state_dict()):
        own.load_state_dict(found)
        return "from the file"
    classifier = cast(Backbone, backbone).class_head.state_dict()
    fits = _shapes(classifier) == _shapes(own.state_dict())
    if init == "class_head" and has_class_head and fits:
        own.load_state_dict(classifier)
        return "from the class head"
    return "fresh"


def _in_head(model: Any, name: str) -> bool:
    heads = model.pretrained_cfg["classifier"]
    return name.startswith(tuple(f"{h}." for h in ([heads] if isinstance(heads, str) else heads)))


def _another_model(path: str | Path, model: Any, reason: str) -> str:
    name = model.pretrained_cfg["architecture"]
    return (
        f"{path}: contains weights of another model than {name} as configured ({reason}). Set "
        "model.backbone and model.backbone_args to those of the file."
    )


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
