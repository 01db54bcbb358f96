"""Attacks hidden in files: each tries to leave a file, the marker, when it is opened."""

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import torch


class Trap:
    """Object that creates the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def zip_checkpoint(marker: Path) -> bytes:
    """Return a checkpoint in torch's zip format that contains a trap."""
    content = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}, "trap": Trap(marker)}, content)
    return content.getvalue()


def legacy_checkpoint(marker: Path) -> bytes:
    """Return a checkpoint in torch's legacy format that contains a trap."""
    content = io.BytesIO()
    torch.save({"trap": Trap(marker)}, content, _use_new_zipfile_serialization=False)
    return content.getvalue()


def pickled(marker: Path) -> bytes:
    """Return a pickle that is a trap."""
    return pickle.dumps(Trap(marker))


def scripted(marker: Path) -> bytes:
    """Return a TorchScript model, which contains its code."""
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), content)
    return content.getvalue()


def tar_member(
    name: str, content: bytes = b"", **attributes: Any
) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """Return a member of a tar with its content, and with attributes such as its type."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def tar_of(*members: tuple[tarfile.TarInfo, io.BytesIO]) -> bytes:
    """Return a tar of members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for info, body in members:
            tar.addfile(info, body if info.isreg() else None)
    return content.getvalue()
