"""Checks of a checkpoint against the model and the run that it is loaded into."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn

from smmix_pl.errors import InputError
from smmix_pl.models.weights import open_checkpoint
from smmix_pl.runs.training_state import (
    check_progress,
    follow_moved_folder,
    resume_interrupted_epoch,
)
from smmix_pl.seeding import run_seed


def prepare_resume(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Validate and repair the training state of a checkpoint, in place, before `fit` restores it.

    Raises:
        InputError: The checkpoint does not hold the state of a training run.
    """
    check_progress(checkpoint, module.trainer)
    follow_moved_folder(module.trainer, checkpoint)
    resume_interrupted_epoch(checkpoint, module.trainer)
    checkpoint["lr_schedulers"] = []  # the schedule follows from the config and the step
    seed = provenance(checkpoint).get("seed", run_seed())
    if seed != run_seed():
        rank_zero_warn(
            f"The checkpoint was trained with seed {seed}, this run has seed {run_seed()}: batch "
            "order and mixing will differ."
        )


def provenance(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return how the weights of a checkpoint were trained: mixer and seed, as far as known."""
    trained = checkpoint.get("trained")
    return trained if isinstance(trained, dict) else {}


def file_provenance(path: str) -> dict[str, Any]:
    """Return how the weights in a file were trained: mixer and seed, as far as known.

    Raises:
        InputError: The file is missing or corrupt.
    """
    content = open_checkpoint(path)
    return provenance(content) if isinstance(content, dict) else {}


def check_weight_sources(pretrained: bool, init_from: str | None) -> None:
    """Reject a model that starts from two sources of weights.

    Raises:
        InputError: Both are given.
    """
    if pretrained and init_from:
        raise InputError(
            f"model.init_from={init_from}: cannot be combined with model.pretrained=true. Remove "
            "one of them."
        )


def check_weights(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Reject the weights of another model, and warn of settings that their shapes do not show.

    Raises:
        InputError: Tensors are missing, or differ in shape or type.
    """
    ours, theirs = module.state_dict(), checkpoint["state_dict"]
    wrong = [
        key
        for key, own in ours.items()
        if key not in theirs
        or own.shape != theirs[key].shape
        or own.is_floating_point() != theirs[key].is_floating_point()
    ]
    if wrong or len(theirs) != len(ours):
        example = (wrong or sorted(theirs.keys() - ours.keys()))[0]
        raise InputError(
            f"model.backbone={module.hparams['backbone']}: the checkpoint holds another model, "
            f"because {len(wrong)} of {len(ours)} tensors are missing or differ in shape or type "
            f"(such as {example}). Use the config that it was trained with."
        )
    _warn_of_differences(module, checkpoint.get("hyper_parameters"))


def _warn_of_differences(module: LightningModule, saved: Any) -> None:
    if not isinstance(saved, dict):
        return
    differences = [
        f"{name} {saved[name]} (now {module.hparams[name]})"
        for name in ("backbone", "backbone_args", "mean", "std")
        if name in saved and _in_eval(saved[name]) != _in_eval(module.hparams[name])
    ]
    if differences:
        rank_zero_warn(f"The checkpoint was trained with {', '.join(differences)}.")


def _in_eval(value: Any) -> Any:
    """Return a setting without what has no effect in evaluation, where nothing is dropped."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict | None):
        return {k: v for k, v in (value or {}).items() if "drop" not in str(k)}
    return value
