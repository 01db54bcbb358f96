"""Checkpoint files: written atomically, opened without running code, removed one by one."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import is_local
from smmix_pl.models.weights import check_finite_weights, open_checkpoint
from smmix_pl.runs.run_files import write_atomic

TRAINING_STATE = (
    *("averaging_state", "callbacks", "current_model_state", "loops", "lr_schedulers"),
    "optimizer_states",
)
"""What only a run that resumes reads from a checkpoint."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint next to its destination and moves it there in one step.

    Lightning writes to the system's temporary folder and copies from there, which takes more than
    one step if that is another disk. Files are opened as weights only, wherever they come from, and
    only checkpoint files are removed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint. At any moment, `path` holds the old checkpoint or the new one.

        Raises:
            InputError: The file cannot be written, for example because the disk is full.
        """
        if not is_local(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        self._folders.add(Path(path).resolve().parent)
        content = BytesIO()
        torch.save(checkpoint, content)
        try:
            write_atomic(Path(path), content.getbuffer())
        except OSError as error:
            raise InputError(
                f"{path}: the checkpoint cannot be written ({error.strerror}). Free disk space or "
                "choose another folder, and resume with --ckpt_path last."
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return the content of a checkpoint. No code in it is run, whatever `weights_only` is.

        Raises:
            InputError: The file is corrupt, or not the checkpoint of a run.
        """
        if not is_local(path):
            try:
                return super().load_checkpoint(path, map_location, weights_only=True)
            except OSError as error:
                raise InputError(
                    f"--ckpt_path={path}: cannot be read ({error}). Pass another file."
                ) from error
        if Path(path).name == ".temp.ckpt":  # bare weights, written by Lightning's spawn launchers
            return open_checkpoint(path)
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint file from a folder that this object has saved to.

        Anything else is kept, with a warning: the names of old checkpoints come from a file, and
        Lightning removes folders recursively.
        """
        if not is_local(path):
            super().remove_checkpoint(path)
            return
        path = Path(path)
        own = path.suffix == ".ckpt" and path.parent.resolve() in self._folders
        if own and (path.is_symlink() or path.is_file()):
            path.unlink()
        elif path.exists():
            rank_zero_warn(f"{path}: not removed, because it is not a checkpoint of this run.")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a run's checkpoint.

    Raises:
        InputError: The file is corrupt, or not the checkpoint of a run.
    """
    content = open_checkpoint(path)
    known = isinstance(content, dict) and isinstance(content.get("state_dict"), dict)
    if not known or not isinstance(content.get("pytorch-lightning_version"), str):
        raise InputError(
            f"--ckpt_path={path}: not the checkpoint of a run. Pass a file that contains only "
            "weights to --model.init_from."
        )
    check_finite_weights(content["state_dict"], path)
    return content


def write_for_evaluation(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whose weights were changed after training, so that none resumes from it.

    Args:
        content: Content of the checkpoint; what training resumes from is not written.
        path: File to write.
    """
    file = BytesIO()
    torch.save({key: value for key, value in content.items() if key not in TRAINING_STATE}, file)
    write_atomic(path, file.getbuffer())


def last_checkpoint(folder: Path, check: bool = True) -> Path | None:
    """Return the checkpoint to resume from: the newest `last*.ckpt`, or the newest of all.

    Args:
        folder: Folder of checkpoints.
        check: Open the file. If it is corrupt, log that and try the next newest.
    """
    found = sorted(filter(Path.is_file, folder.glob("*.ckpt")), key=_resume_order)
    for path in found:
        try:
            if check:
                read_checkpoint(path)
            return path
        except InputError as error:
            rank_zero_info(f"{error} Trying an older checkpoint.")
    return None


def _resume_order(path: Path) -> tuple[bool, float]:
    return not path.name.startswith("last"), -path.stat().st_mtime
