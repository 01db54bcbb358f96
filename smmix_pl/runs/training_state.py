"""Training state of a checkpoint: validated and repaired before Lightning restores it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import repeat_validation, validation_was_due

TRAINING: dict[str, Any] = {
    "optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}]}],
    "lr_schedulers": [],
    "callbacks": {},
    "global_step": 0,
    "epoch": 0,
}
"""Example of what a run needs besides the weights; see `mismatch`."""


def check_progress(checkpoint: Mapping[str, Any], trainer: Trainer) -> None:
    """Check that a checkpoint contains the training state that `fit` restores.

    Args:
        checkpoint: Content of the checkpoint.
        trainer: Its own state is the example for loops, callbacks, and precision.

    Raises:
        InputError: A part is missing or has another type.
    """
    expected = TRAINING | {"loops": {"fit_loop": trainer.fit_loop.state_dict()}}
    own = {callback.state_key: callback.state_dict() for callback in _callbacks(trainer)}
    saved = checkpoint.get("callbacks")
    known = saved if isinstance(saved, dict) else {}
    expected["callbacks"] = {key: state for key, state in own.items() if key in known and state}
    precision = type(trainer.precision_plugin).__qualname__
    if precision in checkpoint:
        expected[precision] = trainer.precision_plugin.state_dict()
    where = mismatch(expected, checkpoint)
    if where is not None:
        raise InputError(
            f"--ckpt_path={trainer.ckpt_path}: the training state is missing or corrupt ({where}). "
            "Start a new run from its weights with --model.init_from."
        )


def mismatch(expected: Any, found: Any, place: str = "") -> str | None:
    """Return the first place where a state differs in structure from an example of it.

    Dictionaries need the example's keys and may have more. Each item of a list must match the
    example's only item. Numbers may be integers, floats, or tensors, but an integer must stay one,
    and must not be negative unless the example's is. None in the example stands for any value that
    is not a container.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return place or "content"
        for key, value in expected.items():
            name = f"{place}.{key}" if place else str(key)
            if key not in found:
                return name
            if (where := mismatch(value, found[key], name)) is not None:
                return where
        return None
    if isinstance(expected, list):
        if not isinstance(found, list) or (expected and not found):
            return place
        items = found if len(expected) == 1 else []
        places = (mismatch(expected[0], item, f"{place}.{i}") for i, item in enumerate(items))
        return next((where for where in places if where is not None), None)
    return None if _same_kind(expected, found) else place


def _same_kind(expected: Any, found: Any) -> bool:
    """Return True if a single value may replace another one in a state."""
    if expected is None:
        return not isinstance(found, Mapping | list | tuple)
    if type(expected) is int:
        return type(found) is int and found >= min(expected, 0)
    if isinstance(expected, Tensor) and expected.ndim:
        return isinstance(found, Tensor)
    if isinstance(expected, float | Tensor):
        return isinstance(found, float | Tensor) or type(found) is int
    return isinstance(found, type(expected)) or not isinstance(expected, bool | str)


def resume_interrupted_epoch(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Correct the progress of a checkpoint that Lightning would resume at the wrong place.

    An epoch that `max_time` or `max_steps` cut off is continued; Lightning would end it. The
    validation that was due after the checkpoint's last batch is run; Lightning would skip it.

    Args:
        checkpoint: Checkpoint of a run, checked by `check_progress`; changed in place.
        trainer: Trainer that is about to resume.
    """
    progress = checkpoint["loops"]["fit_loop"]
    epochs, batches = progress["epoch_progress"], progress["epoch_loop.batch_progress"]
    within_epoch = epochs["total"]["processed"] == epochs["total"]["completed"]
    if not within_epoch and not batches["is_last_batch"]:
        for count in (epochs["total"], epochs["current"]):
            count["processed"] = count["completed"]
    after_batch = batches["total"]["completed"] == batches["total"]["processed"] - 1
    unvalidated = within_epoch and after_batch
    if unvalidated and validation_was_due(trainer, progress):
        repeat_validation(progress)


def follow_moved_folder(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Restrict the file names of `ModelCheckpoint` to the files of its own folder.

    The folder may have moved since the checkpoint was written: Lightning compares paths as text,
    and would forget the best checkpoint and overwrite it with a worse one. And the names may be
    anything if somebody else wrote the checkpoint, while Lightning removes the files that they
    name.

    Args:
        trainer: Trainer that is about to resume `fit`.
        checkpoint: Content of the checkpoint; the states of its callbacks are changed in place.
    """
    source = Path(trainer.ckpt_path or "").resolve().parent
    states = checkpoint.get("callbacks", {})
    for callback in trainer.checkpoint_callbacks:
        state = states.get(callback.state_key)
        folder = getattr(callback, "dirpath", None)
        if state is None:
            continue
        if not folder or "dirpath" not in state:
            del states[callback.state_key]
            continue
        if Path(folder).resolve() in (source, Path(state["dirpath"] or "").resolve()):
            _keep_own_files(state, folder)
        else:  # Lightning warns, and restores this name only
            state["best_model_path"] = ""


def _keep_own_files(state: dict[str, Any], folder: str) -> None:
    """Reduce the names in a ModelCheckpoint's state to checkpoint files in its folder."""

    def own(path: object) -> str:
        name = os.path.basename(str(path))
        file = Path(folder, name)
        inside = file.is_file() and file.resolve().parent == Path(folder).resolve()
        return os.path.join(folder, name) if inside and file.suffix == ".ckpt" else ""

    state["dirpath"] = folder
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = own(state.get(name))
    scores = {own(path): score for path, score in state.get("best_k_models", {}).items()}
    scores.pop("", None)
    state["best_k_models"] = {
        path: score for path, score in scores.items() if isinstance(score, Tensor | float)
    }
    if state["kth_best_model_path"] not in state["best_k_models"]:
        state["kth_best_model_path"] = next(iter(state["best_k_models"]), "")


def _callbacks(trainer: Trainer) -> list[Any]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks
