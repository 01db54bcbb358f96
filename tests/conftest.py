"""Shared fixtures: a tiny backbone, real image folders, the command line."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from smmix_pl import Backbone, SMMix, SMMixModule

# Examples are few and untimed because the suite has to pass on a busy machine with two cores.
settings.register_profile("quick", deadline=None, max_examples=30)
settings.load_profile("quick")

TINY = {"patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}
TINY_FLAGS = [
    "--model.backbone=vit_tiny_patch16_224",
    "--model.backbone_args={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "--data.image_size=32",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def heard_loggers() -> Iterator[None]:
    """A program that a test runs in this process may silence Lightning: for that test alone."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def write_image_folder(root: Path, classes=("ant", "bee", "cat"), per_class=4, size=40) -> Path:
    """Class folders of small random JPEGs."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.JPEG")
    return root


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """A folder in ImageNet's layout: train/ and val/ of three class folders."""
    root = tmp_path / "imagenet"
    write_image_folder(root / "train", per_class=6)
    write_image_folder(root / "val", per_class=3)
    return root


@pytest.fixture
def tiny_backbone() -> Backbone:
    """An 8 x 8 grid of tokens, 10 classes, 32 x 32 pixels."""
    torch.manual_seed(0)
    return Backbone("vit_tiny_patch16_224", 10, (32, 32), model_args=TINY)


@pytest.fixture
def tiny_module() -> SMMixModule:
    """A module around the tiny backbone."""
    torch.manual_seed(0)
    return SMMixModule(
        num_classes=10,
        image_size=(32, 32),
        batch_size=4,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args=TINY,
    )


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
