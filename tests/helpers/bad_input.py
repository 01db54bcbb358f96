"""Commands with invalid input: what to damage, what to run, and what the error has to name."""

import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

TINY = (
    "--model.backbone=vit_tiny_patch16_224 "
    "--model.backbone_args='{patch_size: 4, embed_dim: 24, depth: 2, num_heads: 2}' "
    "--trainer.accelerator=cpu --trainer.max_epochs=1 --trainer.limit_train_batches=2 "
    "--trainer.limit_val_batches=1 --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false --trainer.logger=false --trainer.callbacks=[] "
    "--data.image_size=16 --data.num_workers=0 "
)
SHORTHANDS = {
    "DIGITS": f"--data=smmix_pl.Digits {TINY} --data.batch_size=8 ",
    "FOLDER": f"--data=smmix_pl.data.Folder {TINY} --data.batch_size=4 --data.root=images ",
    "SET": "--data=smmix_pl.data.Folder --data.root=images",
}
IMAGE = "images/train/ant/0.JPEG"
Damage = Callable[[Path], object]


class Case(NamedTuple):
    """One kind of invalid input.

    Attributes:
        command: What the user types. `SHORTHANDS` stand for a tiny model and its data.
        named: What the error has to name: the option and its value, or the file.
        damage: Applied to the folder of valid files before.
    """

    command: str
    named: tuple[str, ...]
    damage: Damage = lambda folder: None


def fit(options: str, *named: str) -> Case:
    """Training on the digits with further options."""
    return Case(f"fit DIGITS {options}", named)


def words_of(command: str) -> list[str]:
    """Split a command into words, with its shorthands expanded."""
    for name, options in SHORTHANDS.items():
        command = command.replace(name, options)
    return shlex.split(command)


def assert_reported(case: Case, status: int | str | None, stderr: str) -> None:
    """One line on stderr that names the input, exit status 2, and no traceback."""
    last = stderr.strip().splitlines()[-1]
    assert status == 2, stderr
    assert last.startswith("error: "), stderr
    assert stderr.count("error: ") == 1, stderr
    assert "Traceback" not in stderr
    for name in case.named:
        assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", last), f"{name!r} in {last!r}"


def write(name: str, content: str | bytes) -> Damage:
    """Write a file."""

    def damage(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def config(content: str | bytes) -> Damage:
    """Write the config that some cases name."""
    return write("mine.yaml", content)


def truncate(name: str) -> Damage:
    """Remove the second half of a file."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def flip_bits(name: str) -> Damage:
    """Flip bits in the middle of a checkpoint's largest member, a weight."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        with zipfile.ZipFile(folder / name) as members:
            largest = max(members.infolist(), key=lambda member: member.file_size)
        start = largest.header_offset + 200 + largest.file_size // 2
        content[start : start + 8] = bytes(255 - byte for byte in content[start : start + 8])
        (folder / name).write_bytes(content)

    return damage


def remove(*names: str) -> Damage:
    """Remove folders."""
    return lambda folder: [shutil.rmtree(folder / name) for name in names]


def replace(name: str, make: Callable[[Path], object]) -> Damage:
    """Make something else in place of a file."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def add_class(*parts: str) -> Damage:
    """Add an empty class folder to some splits."""
    return lambda folder: [(folder / "images" / part / "dog").mkdir() for part in parts]


def checkpoint(change: Callable[[Any], Any]) -> Damage:
    """Change the content of the checkpoint, in place if `change` returns None."""

    def damage(folder: Path) -> None:
        content = torch.load(folder / "good.ckpt", weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, folder / "good.ckpt")

    return damage


def weights(change: Callable[[str, Any], Any]) -> Damage:
    """Change each weight of the checkpoint, and remove it if `change` returns None."""

    def change_all(content: Any) -> None:
        pairs = ((name, change(name, value)) for name, value in content["state_dict"].items())
        content["state_dict"] = {name: value for name, value in pairs if value is not None}

    return checkpoint(change_all)


def results(**changes: object) -> Damage:
    """Write a results.json, valid but for the changes."""
    run = {"model": "vit", "mixer": "SMMix", "data": "Digits", "image_size": [16, 16]}
    top1 = {"value": 0.5, "images": 10, "protocol": {}}
    valid = {
        "run": run | {"seed": 0, "git_commit": None},
        "metrics": {"top1": top1},
        "curves": {},
        "reliability": {},
    }
    return write("results.json", json.dumps(valid | changes))
