"""The mean of the weights of several checkpoints: a uniform soup (Wortsman et al., 2022)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.models.weights import settings_in
from smmix_pl.runs.checkpoint_checks import provenance
from smmix_pl.runs.checkpoint_io import read_checkpoint, write_for_evaluation

MAY_DIFFER = ("batch_size", "compile", "optim")
"""Settings of the optimization. Soups average models that were trained with different ones."""


def average(checkpoints: Sequence[Path], output: Path) -> None:
    """Write a checkpoint whose weights are the mean of those of several.

    Floating-point tensors, statistics of BatchNorm among them, are averaged in float64 and stored
    in their own type. Tables of integers must be equal; of counters, the largest is kept. Files,
    their hashes, seeds, and steps are stored as `averaged`.

    Args:
        checkpoints: At least two checkpoints of `SMMixModule` with the same settings, those of the
            optimization aside, and the same classes.
        output: Checkpoint to write. Training cannot resume from it.

    Raises:
        InputError: A checkpoint is unsuitable, or differs from the first one.
    """
    if len(checkpoints) < 2:
        raise InputError("CHECKPOINTS: an average needs two. Add one.")
    if output.suffix != ".ckpt":
        raise InputError(f"--output={output}: must end in .ckpt.")
    first = read_checkpoint(checkpoints[0])
    sums: dict[str, Tensor] = {}
    sources: dict[str, dict[str, Any]] = {}
    for path in checkpoints:
        content = read_checkpoint(path)
        _check_settings(content, first, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in sources:
            raise InputError(f"{path}: the same file as {sources[digest]['file']}. Name it once.")
        seed, step = provenance(content).get("seed"), content.get("global_step")
        sources[digest] = {"file": str(path), "sha256": digest, "seed": seed, "step": step}
        _add(sums, content["state_dict"], path)
    for name, weight in first["state_dict"].items():
        if weight.is_floating_point():
            sums[name] = (sums[name] / len(checkpoints)).to(weight.dtype)
    trained = provenance(first)
    if len({source["seed"] for source in sources.values()}) > 1:
        trained = {key: value for key, value in trained.items() if key != "seed"}
    changes = {"state_dict": sums, "trained": trained, "averaged": [*sources.values()]}
    write_for_evaluation(first | changes, output)


def _check_settings(content: dict[str, Any], first: dict[str, Any], path: Path) -> None:
    """Reject a model with other settings, other classes, or a class head that was scaled."""
    if "temperature" in content:
        raise InputError(
            f"{path}: its class head is divided by a temperature. Average the checkpoints that it "
            "was made of, and calibrate the result."
        )
    own, expected = settings_in(content, path), settings_in(first, path)
    for name in sorted((own.keys() | expected.keys()) - {*MAY_DIFFER}):
        if own.get(name) != expected.get(name):
            raise InputError(
                f"{path}: was trained with {name}={own.get(name)}, the first checkpoint with "
                f"{expected.get(name)}. Average checkpoints of one model and recipe."
            )
    for key in ("trained", "prepared"):
        ours, theirs = _without_seed(content.get(key)), _without_seed(first.get(key))
        if ours != theirs:
            raise InputError(
                f"{path}: has {key} {str(ours)[:200]}, the first checkpoint {str(theirs)[:200]}. "
                "Average checkpoints of one model, dataset, and mixer."
            )


def _without_seed(described: Any) -> Any:
    if not isinstance(described, dict):
        return described
    return {key: value for key, value in described.items() if key != "seed"}


def _add(sums: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> None:
    """Add weights to their sums, in place.

    Raises:
        InputError: Names, shapes, or types differ from those of the sums, or integers do.
    """
    if sums and weights.keys() != sums.keys():
        odd = sorted(weights.keys() ^ sums.keys())[0]
        raise InputError(f"{path}: not the same model, because of {odd}. Leave it out.")
    for name, weight in weights.items():
        new = weight.double() if weight.is_floating_point() else weight
        if name not in sums:
            sums[name] = new
            continue
        total = sums[name]
        same = new.shape == total.shape and new.dtype == total.dtype
        is_counter = name.endswith("num_batches_tracked")
        if same and new.is_floating_point():
            total += new
        elif same and is_counter:
            sums[name] = torch.maximum(total, new)
        elif not same or not torch.equal(new, total):
            raise InputError(
                f"{path}: {name}, {tuple(new.shape)} of {weight.dtype}, differs from that of the "
                "first checkpoint. Average checkpoints of one model."
            )
