"""The command line, in this process and in a process of its own."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import pytest
import wandb

from smmix_pl.cli.main import main

TINY_FLAGS = [
    "--model.backbone=vit_tiny_patch16_224",
    "--model.backbone_args={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "--data.image_size=32",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
]
NO_GROUP = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")
"""What a test that started a process group leaves in the environment."""


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
        for name in NO_GROUP:
            patch.delenv(name, raising=False)
        try:
            main([str(word) for word in words])
        finally:
            wandb.finish()
    return output.getvalue()


def run_cli(
    *words: object,
    cwd: Path,
    env: dict[str, str | None] | None = None,
    program: Literal["smmix", "python"] = "smmix",
) -> subprocess.CompletedProcess:
    """Run `smmix`, or Python itself, in a process of its own.

    W&B is off. A variable of `env` that is None is unset.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    clean = {key: value for key, value in clean.items() if key not in NO_GROUP}
    clean |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "COLUMNS": "120"} | (env or {})
    module = ["-m", "smmix_pl"] if program == "smmix" else []
    return subprocess.run(
        [sys.executable, *module, *map(str, words)],
        cwd=cwd,
        env={key: value for key, value in clean.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )
