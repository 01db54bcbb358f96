"""Checkpoints that are whole or not there, opened without running code; and runs that go on."""

import os
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import is_local
from smmix_pl.models.weights import check_finite_weights, open_checkpoint

UNFINISHED = ".unfinished"
"""Suffix of a checkpoint that is being written; what is found with it later is of a killed run."""
class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and then moves it there in one step.

    Lightning's own writes to the machine's temporary folder first, and from there to another disk
    not in one step. Files are opened as weights only, from wherever they come.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write, so that at any moment the place holds the old checkpoint or the new one.

        Raises:
            InputError: The disk is full, the folder cannot be written to, or the like.
        """
        if not is_local(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = BytesIO()
        torch.save(checkpoint, content)
        try:
            write_atomic(Path(path), content.getbuffer())
        except OSError as error:
            raise InputError(
                f"the checkpoint {path} cannot be written ({error.strerror}); make room or give "
                "another folder, and go on with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """What a file holds; no code in it is run, whatever ``weights_only`` says.

        Raises:
            InputError: It is damaged, or no checkpoint of a run.
        """
        if not is_local(path):
            try:
                return super().load_checkpoint(path, map_location, weights_only=True)
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error}); give another file") from error
        if Path(path).name == ".temp.ckpt":  # of Lightning's launchers that spawn: weights alone
            return open_checkpoint(path)
        return read_checkpoint(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What the checkpoint of a run holds.

    Raises:
        InputError: It is damaged, or no checkpoint of a run.
    """
    content = open_checkpoint(path)
    known = isinstance(content, dict) and isinstance(content.get("state_dict"), dict)
    if not known or not isinstance(content.get("pytorch-lightning_version"), str):
        raise InputError(
            f"{path} is not the checkpoint of a run; weights alone are given as --model.init_from"
        )
    check_finite_weights(content["state_dict"], path)
    return content


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Put a file in its place in one step, after it has reached the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def last_checkpoint(folder: Path, check: bool = True) -> Path | None:
    """The checkpoint that a run goes on from: the newest ``last``, or the newest of all.

    Args:
        folder: Of checkpoints.
        check: Open it, and take the next newest, which is told, where it is damaged.
    """
    found = sorted(filter(Path.is_file, folder.glob("*.ckpt")), key=_age)
    for path in found:
        try:
            if check:
                read_checkpoint(path)
            return path
        except InputError as error:
            rank_zero_info(f"{error}; an older one is looked for")
    return None


def _age(path: Path) -> tuple[bool, float]:
    return not path.name.startswith("last"), -path.stat().st_mtime


