"""Weights out: a trained backbone for timm alone, or for ONNX.

    smmix export runs/imagenet/deit_tiny_patch16_224-smmix/version_0/checkpoints/best.ckpt --output OUT

OUT decides the format: `FILE.safetensors` (timm's weights; what to call timm with is printed, and
kept in the file), `FILE.onnx`, or a folder, `timm.create_model("local-dir:OUT", pretrained=True)`.
A checkpoint of a run with a weight average gives the average. The token head stays behind.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from timm.models import filter_pretrained_cfg

from smmix_pl.runs.checkpoint_io import write_atomic
from smmix_pl.errors import InputError, one_line
from smmix_pl.models.backbone import create_timm_model
from smmix_pl.models.weights import open_checkpoint, settings_in, weights_in


@dataclass(frozen=True)
class Trained:
    """A trained timm model and what timm has to be told to make it again.

    Attributes:
        model: In eval mode, without token head.
        name: Its name in timm.
        args: Further arguments of ``timm.create_model``.
        pretrained_cfg: How to prepare images for it, in timm's words.
    """

    model: Any
    name: str
    args: dict[str, Any]
    pretrained_cfg: dict[str, Any]


def export(checkpoint: str | Path, out: Path, crop_pct: float | None = None) -> str:
    """Write a trained backbone in the format that ``out`` ends in.

    Args:
        checkpoint: A checkpoint of `SMMixModule`.
        out: A ``.safetensors`` or ``.onnx`` file, or a folder.
        crop_pct: Share of the resized image's side that evaluation crops; null for the run's.

    Returns:
        How to load it.

    Raises:
        InputError: The checkpoint is missing, damaged or not of ours, or another format.
    """
    formats = {".safetensors": to_safetensors, ".onnx": to_onnx, "": to_folder}
    if out.suffix not in formats:
        raise InputError(
            f"{out} ends in {out.suffix}; end it in .safetensors or .onnx, or name a folder"
        )
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise InputError(f"--crop_pct is {crop_pct}; it must be in (0, 1] (the paper's is 0.875)")
    if out.suffix and out.is_dir():
        raise InputError(f"{out} is a folder; give another name, or remove it")
    trained = load_trained(checkpoint, crop_pct)
    out.parent.mkdir(parents=True, exist_ok=True)
    return formats[out.suffix](trained, out)


def load_trained(checkpoint: str | Path, crop_pct: float | None) -> Trained:
    """The timm model in a checkpoint of ours.

    Args:
        checkpoint: As of `export`.
        crop_pct: As of `export`.
    """
    content = open_checkpoint(checkpoint)
    settings = settings_in(content, checkpoint)
    name, size = settings["backbone"], tuple(settings["image_size"])
    given = settings["backbone_args"] or {}
    model, args = create_timm_model(name, settings["num_classes"], size, False, given)
    weights = weights_in(content, checkpoint)
    for key, own in model.state_dict().items():
        if key in weights and own.is_floating_point() != weights[key].is_floating_point():
            raise InputError(
                f"{checkpoint} is damaged: {key} is of {weights[key].dtype}, not of {own.dtype}; "
                "get it anew"
            )
    try:
        model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("token_head.")})
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint} does not hold the {name} that it says ({one_line(error)[:300]}); "
            "get it anew"
        ) from error
    preparation = {
        "architecture": name,
        "num_classes": settings["num_classes"],
        "input_size": [args.get("in_chans", 3), *size],
        "mean": list(settings["mean"]),
        "std": list(settings["std"]),
        "crop_pct": 0.875,
    }
    preparation |= content.get("prepared", {})  # of older checkpoints: the paper's
    preparation |= {} if crop_pct is None else {"crop_pct": crop_pct}
    cfg = filter_pretrained_cfg(dict(model.pretrained_cfg), remove_source=True, remove_null=True)
    return Trained(model.eval(), name, args, cfg | preparation)


def to_safetensors(trained: Trained, file: Path) -> str:
    """One file of timm's weights, with its settings as metadata.

    Returns:
        The line of Python that loads it.
    """
    # Cloned, because safetensors refuses tensors that share memory.
    weights = {k: v.clone().contiguous() for k, v in trained.model.state_dict().items()}
    settings = {
        "architecture": trained.name,
        "model_args": json.dumps(trained.args),
        "pretrained_cfg": json.dumps(trained.pretrained_cfg),
    }
    content = save(weights, {"format": "pt", **settings})
    write_atomic(file, content)
    kept = ("input_size", "mean", "std", "crop_pct", "interpolation", "num_classes")
    preparation = {key: trained.pretrained_cfg[key] for key in kept}
    arguments = "".join(
        f", {key}={value!r}"
        for key, value in (trained.args | {"pretrained_cfg_overlay": preparation}).items()
    )
    return _loads(trained, f"{trained.name!r}, checkpoint_path={str(file)!r}{arguments}")


def to_folder(trained: Trained, folder: Path) -> str:
    """The folder format of timm's hub: ``config.json`` and ``model.safetensors``.

    Returns:
        The line of Python that loads it.
    """
    folder.mkdir(exist_ok=True)
    to_safetensors(trained, folder / "model.safetensors")
    config = {
        "architecture": trained.name,
        "num_classes": trained.pretrained_cfg["num_classes"],
        "num_features": trained.model.num_features,
        "model_args": trained.args,
        "pretrained_cfg": trained.pretrained_cfg,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return _loads(trained, f"'local-dir:{folder}', pretrained=True")


def to_onnx(trained: Trained, file: Path) -> str:
    """ONNX, held against torch.

    Returns:
        The line of Python that loads it, and how far its logits are from torch's.
    """
    try:
        from smmix_pl.runs.export_onnx import write_onnx
    except ImportError as error:
        raise InputError(f"{file}: {error}; pip install 'smmix-pl[onnx]'") from error
    cfg = trained.pretrained_cfg
    worst = write_onnx(trained.model, cfg["input_size"], {"pretrained_cfg": json.dumps(cfg)}, file)
    return f"onnxruntime.InferenceSession({str(file)!r})  # within {worst:.1e} of torch's logits"


def _loads(trained: Trained, call: str) -> str:
    ours = type(trained.model).__module__.startswith("smmix_pl")
    registers = f"import smmix_pl  # registers {trained.name} with timm\n" if ours else ""
    return f"{registers}timm.create_model({call})"
