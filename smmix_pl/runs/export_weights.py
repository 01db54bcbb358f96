"""Export of a trained backbone to timm or ONNX.

The suffix of the output selects the format: `FILE.safetensors` contains timm weights, with the
arguments of `timm.create_model` as metadata; `FILE.onnx` is an ONNX program; a folder can be loaded
as `timm.create_model("local-dir:FOLDER", pretrained=True)`. The token head is not exported. A run
with EMA exports the averaged weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from timm.models import filter_pretrained_cfg
from torch import Tensor

from smmix_pl.errors import InputError, one_line
from smmix_pl.models.timm_model import create_timm_model
from smmix_pl.models.weights import open_checkpoint, settings_in, weights_in
from smmix_pl.runs.run_files import write_atomic

PREPARATION = ("input_size", "mean", "std", "crop_pct", "interpolation", "num_classes")
"""Settings of timm's data configuration that the exported model needs."""
NORM_EPS = 1e-5
"""Of the BatchNorm of a linear probe."""


@dataclass(frozen=True)
class TrainedBackbone:
    """A trained timm model, and the arguments that create it.

    Attributes:
        model: Model in eval mode, without token head.
        name: Name of the model in timm.
        args: Further arguments of `timm.create_model`.
        pretrained_cfg: timm's data configuration: input size, normalization, crop ratio, and the
            class names in the order of the logits as `label_names`.
    """

    model: Any
    name: str
    args: dict[str, Any]
    pretrained_cfg: dict[str, Any]


def export(checkpoint: str | Path, out: Path, crop_pct: float | None = None) -> str:
    """Write a trained backbone in the format selected by the suffix of `out`.

    Args:
        checkpoint: Checkpoint of an `SMMixModule`, or of a `LinearProbe`, whose best classifier
            becomes the class head.
        out: A `.safetensors` or `.onnx` file, or a folder.
        crop_pct: Fraction of the resized image's side that is kept by the center crop, in (0, 1].
            None uses the run's.

    Returns:
        Python code that loads the result.

    Raises:
        InputError: The checkpoint is missing, corrupt, or not from this package, or the output
            cannot be used.
    """
    formats = {".safetensors": to_safetensors, ".onnx": to_onnx, "": to_folder}
    if out.suffix not in formats:
        raise InputError(
            f"--output={out}: unknown format {out.suffix}. Use .safetensors, .onnx, or a folder."
        )
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise InputError(f"--crop_pct={crop_pct}: must be in (0, 1]. The paper uses 0.875.")
    if out.suffix and out.is_dir():
        raise InputError(f"--output={out}: is a folder. Choose another name, or remove it.")
    trained = load_trained(checkpoint, crop_pct)
    out.parent.mkdir(parents=True, exist_ok=True)
    return formats[out.suffix](trained, out)


def load_trained(checkpoint: str | Path, crop_pct: float | None) -> TrainedBackbone:
    """Load the timm model in a checkpoint.

    Args:
        checkpoint: As in `export`.
        crop_pct: As in `export`.

    Raises:
        InputError: The weights do not match the model that the checkpoint describes.
    """
    content = open_checkpoint(checkpoint)
    settings = settings_in(content, checkpoint)
    if "task" in settings:
        raise InputError(
            f"{checkpoint}: a model for {settings['task']}, which timm does not have. Export a "
            "classifier, or pass the file to --model.init_from."
        )
    name, size = settings["backbone"], tuple(settings["image_size"])
    given = settings["backbone_args"] or {}
    model, args = create_timm_model(name, settings["num_classes"], size, False, given)
    weights = weights_in(content, checkpoint) | _probe_head(content, model)
    for key, own in model.state_dict().items():
        if key in weights and own.is_floating_point() != weights[key].is_floating_point():
            raise InputError(
                f"{checkpoint}: corrupt checkpoint ({key} has dtype {weights[key].dtype}, expected "
                f"{own.dtype}). Download or train it again."
            )
    try:
        model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("token_head.")})
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint}: corrupt checkpoint (not the {name} that it describes: "
            f"{one_line(error)[:300]}). Download or train it again."
        ) from error
    preparation = {
        "architecture": name,
        "num_classes": settings["num_classes"],
        "input_size": [args.get("in_chans", 3), *size],
        "mean": list(settings["mean"]),
        "std": list(settings["std"]),
        "crop_pct": 0.875,
    }
    prepared = content.get("prepared")
    prepared = prepared if isinstance(prepared, dict) else {}
    for key, kind in (("crop_pct", float), ("interpolation", str)):
        if isinstance(prepared.get(key), kind):
            preparation[key] = prepared[key]
    names = prepared.get("label_names")
    if isinstance(names, list) and list(map(type, names)) == settings["num_classes"] * [str]:
        preparation["label_names"] = names
    preparation |= {} if crop_pct is None else {"crop_pct": crop_pct}
    cfg = filter_pretrained_cfg(dict(model.pretrained_cfg), remove_source=True, remove_null=True)
    return TrainedBackbone(model.eval(), name, args, cfg | preparation)


def _probe_head(content: dict[str, Any], model: Any) -> dict[str, Tensor]:
    """Return the class head that equals the best classifier of a linear probe, if it is one.

    The normalization of the features is linear, too.
    """
    state = content.get("state_dict", {})
    if "sweep.norm.running_var" not in state:
        return {}
    best = f"sweep.heads.{int(state['best'])}"
    weight = state[f"{best}.weight"] * (state["sweep.norm.running_var"] + NORM_EPS).rsqrt()
    bias = state[f"{best}.bias"] - weight @ state["sweep.norm.running_mean"]
    heads = model.pretrained_cfg["classifier"]
    named = [heads] if isinstance(heads, str) else heads  # a distilled model averages two
    return {f"{one}.{kind}": x for one in named for kind, x in (("weight", weight), ("bias", bias))}


def to_safetensors(trained: TrainedBackbone, file: Path) -> str:
    """Write timm weights to one file, with the model's arguments as metadata.

    Returns:
        Python code that loads it.
    """
    # cloned, because safetensors rejects tensors that share memory
    weights = {k: v.clone().contiguous() for k, v in trained.model.state_dict().items()}
    settings = {
        "architecture": trained.name,
        "model_args": json.dumps(trained.args),
        "pretrained_cfg": json.dumps(trained.pretrained_cfg),
    }
    content = save(weights, {"format": "pt", **settings})
    write_atomic(file, content)
    preparation = {key: trained.pretrained_cfg[key] for key in PREPARATION}
    arguments = "".join(
        f", {key}={value!r}"
        for key, value in (trained.args | {"pretrained_cfg_overlay": preparation}).items()
    )
    return _loading_code(trained, f"{trained.name!r}, checkpoint_path={str(file)!r}{arguments}")


def to_folder(trained: TrainedBackbone, folder: Path) -> str:
    """Write the folder format of timm's hub: `config.json` and `model.safetensors`.

    Returns:
        Python code that loads it.
    """
    folder.mkdir(exist_ok=True)
    to_safetensors(trained, folder / "model.safetensors")
    cfg = dict(trained.pretrained_cfg)
    names = {key: cfg.pop(key) for key in ("label_names",) if key in cfg}  # where timm expects them
    config = {
        "architecture": trained.name,
        "num_classes": trained.pretrained_cfg["num_classes"],
        "num_features": trained.model.num_features,
        "model_args": trained.args,
        "pretrained_cfg": cfg,
        **names,
    }
    write_atomic(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    return _loading_code(trained, f"'local-dir:{folder}', pretrained=True")


def to_onnx(trained: TrainedBackbone, file: Path) -> str:
    """Write an ONNX program and compare its logits with torch's.

    Returns:
        Python code that loads it, with the largest difference of the logits.

    Raises:
        InputError: The ONNX packages are not installed.
    """
    try:
        from smmix_pl.runs.export_onnx import write_onnx
    except ImportError as error:
        raise InputError(
            f"--output={file}: {error}. Install the packages with pip install 'smmix-pl[onnx]'."
        ) from error
    cfg = trained.pretrained_cfg
    worst = write_onnx(trained.model, cfg["input_size"], {"pretrained_cfg": json.dumps(cfg)}, file)
    return f"onnxruntime.InferenceSession({str(file)!r})  # within {worst:.1e} of torch's logits"


def _loading_code(trained: TrainedBackbone, call: str) -> str:
    code = f"timm.create_model({call})"
    if type(trained.model).__module__.startswith("smmix_pl"):
        code = f"import smmix_pl.models  # registers {trained.name} with timm\n{code}"
    return code
