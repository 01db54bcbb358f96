"""The command line, in this process."""

import contextlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import wandb

from helpers.processes import PROCESS_GROUP
from smmix_pl.cli.main import main

TINY_FLAGS = [
    "--model.backbone=vit_tiny_patch16_224",
    "--model.backbone_args={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "--data.image_size=32",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
]


def refusal(program: Callable[[list[str]], None], words: Iterable[object], capsys) -> str:
    """Return the error line of a command that ends with status 2, run in this process."""
    with pytest.raises(SystemExit) as stop:
        program([str(word) for word in words])
    assert stop.value.code == 2
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    [line] = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line


def run_here(*words: object, cwd: Path) -> str:
    """Run a command in this process, in a folder, with W&B off, and return what it prints."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(cwd)
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("COLUMNS", "120")
        for name in PROCESS_GROUP:
            patch.delenv(name, raising=False)
        try:
            main([str(word) for word in words])
        finally:
            wandb.finish()
    return output.getvalue()
