"""The installed programs, in this process and in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

TINY_FLAGS = [
    "--model.backbone=vit_tiny_patch16_224",
    "--model.backbone_args={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "--data.image_size=32",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
]


def refusal(program: Callable[[list[str]], None], words: Iterable[object], capsys) -> str:
    """The one sentence with which a program of this package, run in this process, refuses."""
    with pytest.raises(SystemExit) as stop:
        program([str(word) for word in words])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    [sentence] = [line for line in told.splitlines() if line.startswith("error: ")]
    return sentence


def run_cli(
    *words: object, cwd: Path, env: dict[str, str | None] | None = None, program: str = "lightning"
) -> subprocess.CompletedProcess:
    """An installed program in a process of its own; W&B is off, and None unsets a variable."""
    # A test in this process that made a group of ranks has left its address behind
    group = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    clean = {key: value for key, value in clean.items() if key not in group}
    clean |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "COLUMNS": "120"} | (env or {})
    return subprocess.run(
        [str(Path(sys.executable).parent / program), *map(str, words)],
        cwd=cwd,
        env={key: value for key, value in clean.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
    )
