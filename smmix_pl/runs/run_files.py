"""Writing the files of a run safely: in one step, and never through a link out of its folder."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from smmix_pl.errors import InputError

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written. One that is found later was left by a killed run."""


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Replace a file in one step, after its content has reached the disk.

    A link at `path` is replaced, not followed.

    Raises:
        OSError: The file cannot be written. The old file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}{UNFINISHED}")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:  # fails on a link, instead of following it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def read_config(folder: Path) -> dict[str, Any]:
    """Return the saved config of a run: empty if it is missing, or was truncated by a kill."""
    config = folder / "config.yaml"
    try:
        settings = yaml.safe_load(config.read_bytes()) if config.is_file() else {}
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def inside_run(folder: Path, path: Path) -> Path:
    """Return a path if it is inside a run's folder after all links are followed.

    Args:
        folder: Folder of the run.
        path: File or folder in it.

    Raises:
        InputError: A link leads out of the folder.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path}: links to a place outside the run folder {folder}. Replace the link with the "
            "file or folder that it points to."
        )
    return path


def check_run_folder(folder: Path) -> None:
    """Reject a run folder in which a file could lead a write, or a read, out of it.

    Args:
        folder: Folder of an earlier run that is about to be read or written to.

    Raises:
        InputError: A link leads out of the folder, or something is neither a file nor a folder.
    """
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                inside_run(folder, path)
            elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InputError(
                    f"{path}: neither a file nor a folder, so the run folder {folder} is not used. "
                    "Remove it."
                )
