"""Weights in: the authors' files, the original releases of the backbones, timm's and our own.

Nothing in a file is run: torch opens it as weights only.
"""

import re
import sys
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.models.backbone import Backbone

Weights = dict[str, Tensor]
TokenHeadInit = Literal["fresh", "class_head"]

TOLD = {"backbone", "backbone_args", "image_size", "num_classes", "mean", "std"}
"""What a checkpoint of ours says of its model."""

WRAPPERS = ("state_dict", "model")
"""Where a file keeps its weights. Never ``model_ema``: the authors' release writes an average that
it never updates; in Lightning's checkpoints the average, if any, is the ``state_dict``."""


def load_weights(backbone: Backbone, path: str | Path, token_head: TokenHeadInit = "fresh") -> str:
    """Start a backbone from a file, as far as it fits.

    Position embeddings and tables of another image size are resized, by timm where it knows how. A
    class head for another number of classes stays behind.

    Args:
        backbone: Receives the weights.
        path: A ``.safetensors`` file or one of torch's (``.pth``, ``.pt``, ``.ckpt``).
        token_head: A file without a (fitting) token head leaves it ``fresh``, or as a copy of the
            loaded ``class_head``.

    Returns:
        What was loaded and what was not, in one line.

    Raises:
        InputError: The file is missing, is damaged, or holds another model.
    """
    weights = weights_in(open_checkpoint(path), path)
    head = {name: value for name, value in weights.items() if name.startswith("token_head.")}
    found = _adapt(backbone, {name: weights[name] for name in weights.keys() - head}, path)
    own = backbone.model.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
    _check_fit(backbone.model, found, fitting, path)
    backbone.model.load_state_dict(fitting, strict=False)
    origin = _start_token_head(backbone, head, fitting, token_head)
    return (
        f"{path}: {len(fitting)} of {len(own)} tensors of {type(backbone.model).__name__} loaded, "
        f"token head {origin}; not taken from the file: {_listed(found.keys() - fitting)}; "
        f"left as initialized: {_listed(own.keys() - fitting)}"
    )


def weights_in(content: Any, path: str | Path) -> Weights:
    """The backbone's weights in an opened file, under timm's names and ``token_head.``.

    Args:
        content: What `open_checkpoint` returned.
        path: Where it is from.

    Raises:
        InputError: There are no weights in it, or they are no numbers.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {
        # As DistributedDataParallel and torch.compile wrap models.
        name.removeprefix("module.").replace("_orig_mod.", ""): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, Tensor) and isinstance(name, str)
    }
    if not tensors:
        raise InputError(f"{path} holds no weights; give a state dict, or a checkpoint with one")
    check_finite_weights(tensors, path)
    ours = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return {name.removeprefix("model."): value for name, value in (ours or tensors).items()}


def settings_in(content: Any, path: str | Path) -> dict[str, Any]:
    """What the `SMMixModule` of an opened checkpoint was built with.

    Args:
        content: What `open_checkpoint` returned.
        path: Where it is from.

    Raises:
        InputError: It is not the checkpoint of a run of ours.
    """
    settings = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or not settings.keys() >= TOLD or not _sound(settings):
        raise InputError(
            f"{path} is no checkpoint of an SMMixModule; give a .ckpt file of a run of ours"
        )
    return settings


def _sound(settings: Mapping[str, Any]) -> bool:
    """Whether settings are of the types that a run of ours writes."""

    def numbers(name: str, kind: Any) -> bool:
        values = settings[name]
        return isinstance(values, list | tuple) and all(isinstance(one, kind) for one in values)

    return (
        isinstance(settings["backbone"], str)
        and isinstance(settings["backbone_args"], dict | None)
        and isinstance(settings["num_classes"], int)
        and 1 < settings["num_classes"] < 10**6
        and numbers("image_size", int)
        and len(settings["image_size"]) == 2
        and min(settings["image_size"]) > 0
        and all(numbers(name, int | float) for name in ("mean", "std"))
        and len(settings["mean"]) == len(settings["std"]) > 0
    )


def check_finite_weights(weights: Mapping[str, Any], path: str | Path) -> None:
    """Refuse weights that would make every result a wrong one.

    Args:
        weights: By name.
        path: Where they are from.

    Raises:
        InputError: One is not a tensor of finite real numbers.
    """
    for name, value in weights.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        if not plain or value.is_complex() or value.is_quantized or value.is_meta:
            kind = value.dtype if plain else getattr(value, "layout", type(value).__name__)
            raise InputError(f"{path} is damaged: {name} is of {kind}, not of floats; get it anew")
        if not bool(value.isfinite().all()):
            raise InputError(f"{path} is damaged: {name} holds NaN or infinity; take an older one")


def open_checkpoint(path: str | Path) -> Any:
    """What is in a file, without running code from it.

    Args:
        path: As of `load_weights`.

    Raises:
        InputError: The file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no file {path}; weights come from a .safetensors, .pth, .pt or .ckpt file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_stored(path)
        # DeiT's training script, and so the authors', keeps its command line in the file.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes torch raise, the file decides
        told = str(error).strip() or type(error).__name__
        code = re.search(r"GLOBAL [\w.]+", told)  # torch's first line advises to run it
        reason = code[0] if code else told.splitlines()[0]
        raise InputError(
            f"{path} cannot be opened as weights: it is truncated, of another format, or holds "
            f"code, which is not run ({reason[:200]}); get it anew"
        ) from error


def _check_stored(path: Path) -> None:
    """Refuse a zip file whose members are compressed: torch writes none, and it could be a bomb."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed, to be {member.file_size} bytes")
        if (damaged := members.testzip()) is not None:  # torch itself reads over a wrong checksum
            raise ValueError(f"the checksum of {damaged} is wrong")


def _adapt(backbone: Backbone, weights: Weights, path: str | Path) -> Weights:
    """Weights of an original release under timm's names, and for this model's image size."""
    # timm keeps the conversion of each family beside its model, under this name.
    module = sys.modules[type(backbone.model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", lambda weights, _: weights)
    own = backbone.model.state_dict()
    try:
        weights = dict(convert(weights, backbone.model))
        for name in weights.keys() & own:
            if name.endswith("pos_embed") and weights[name].shape != own[name].shape:
                # timm's CaiT has a conversion that leaves the position embedding as it is.
                prefix = own[name].shape[1] - backbone.grid[0] * backbone.grid[1]
                weights[name] = resample_abs_pos_embed(
                    weights[name], list(backbone.grid), num_prefix_tokens=prefix
                )
    except (AttributeError, IndexError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(_another_model(path, backbone.model, str(error))) from error
    return weights


def _check_fit(model: Any, found: Weights, fitting: Weights, path: str | Path) -> None:
    """Refuse the weights of another model: another shape anywhere but in the head, or few names."""
    own = {name: value for name, value in model.state_dict().items() if not _in_head(model, name)}
    for name in sorted(found.keys() & own):
        if name not in fitting:
            there, here = tuple(found[name].shape), tuple(own[name].shape)
            raise InputError(_another_model(path, model, f"its {name} is {there}, not {here}"))
        if own[name].is_floating_point() and not found[name].is_floating_point():
            reason = f"its {name} is of {found[name].dtype}, not of floats"
            raise InputError(_another_model(path, model, reason))
    shared = len(fitting.keys() & own)
    if 2 * shared < len(own):
        raise InputError(_another_model(path, model, f"{shared} of {len(own)} tensors are in it"))


def _start_token_head(
    backbone: Backbone, head: Weights, fitting: Weights, init: TokenHeadInit
) -> str:
    """Fill the token head, and say from where."""
    own = backbone.token_head
    if own is None:
        return "shared with the class head"
    found = {name.removeprefix("token_head."): value for name, value in head.items()}
    if _shapes(found) == _shapes(own.state_dict()):
        own.load_state_dict(found)
        return "from the file"
    classifier = _class_head(backbone)
    loaded = any(_in_head(backbone.model, name) for name in fitting)
    if init == "class_head" and loaded and _shapes(classifier) == _shapes(own.state_dict()):
        own.load_state_dict(classifier)
        return "from the class head"
    return "fresh"


def _class_head(backbone: Backbone) -> Weights:
    head = backbone.model.get_classifier()
    return (head[0] if isinstance(head, tuple) else head).state_dict()


def _in_head(model: Any, name: str) -> bool:
    heads = model.pretrained_cfg["classifier"]
    return name.startswith(tuple(f"{h}." for h in ([heads] if isinstance(heads, str) else heads)))


def _another_model(path: str | Path, model: Any, reason: str) -> str:
    name = model.pretrained_cfg["architecture"]
    return (
        f"{path} holds the weights of another model than {name} as "
        f"configured: {reason}; set model.backbone and model.backbone_args to those of the file"
    )


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
