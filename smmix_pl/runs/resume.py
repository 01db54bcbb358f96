"""Resuming: which run and checkpoint to resume from, and what has to be repaired on the way."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import configured_version, set_version
from smmix_pl.models.weights import open_checkpoint
from smmix_pl.runs.checkpoint_io import UNFINISHED, last_checkpoint
from smmix_pl.runs.wandb_logger import WandbLogger

JOB_FILE = ".slurm_job"
PROGRESS = ("ready", "started", "processed", "completed")
TRAINING = {
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "global_step": int,
    "epoch": int,
}
"""What a run needs beside the weights to go on, and of which type."""


def check_progress(checkpoint: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint that does not say where its run was.

    Raises:
        InputError: It was saved without, or is damaged.
    """
    for name, kind in TRAINING.items():
        found: Any = checkpoint.get(name)
        damaged = type(found) is not kind or found == [] or (isinstance(found, int) and found < 0)
        if damaged or (kind is list and not all(isinstance(one, dict) for one in found)):
            raise InputError(
                f"the checkpoint does not say where its run was ({name} is missing or damaged); "
                "begin anew from its weights with --model.init_from"
            )


def run_folders(trainer: Trainer) -> tuple[CSVLogger, list[Path]]:
    """The logger that names the run's folder, and the folders of its earlier runs, newest first.

    Raises:
        InputError: No such logger comes first.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if not isinstance(logger, CSVLogger):
        raise InputError(
            "--ckpt_path last looks in the folders of a CSVLogger, which has to be the first of "
            "trainer.logger; give the checkpoint's file instead"
        )
    numbered = [
        (int(number), path)
        for path in Path(logger.root_dir).glob("version_*")
        if (number := path.name.removeprefix("version_")).isdecimal()
    ]
    return logger, [path for _, path in sorted(numbered, reverse=True)]


def should_resume(trainer: Trainer, ckpt_path: str | None) -> bool:
    """Whether a run goes on with an earlier one: it is told to, or it would be written over it.

    Args:
        trainer: Of ``fit``.
        ckpt_path: As the user gave it.
    """
    if ckpt_path is not None:
        return ckpt_path == "last"
    logger = trainer.loggers[0] if trainer.loggers else None
    if not isinstance(logger, CSVLogger) or getattr(trainer, "fast_dev_run", False):
        return False
    if configured_version(logger) is None:
        return requeued_job() is not None
    return last_checkpoint(Path(logger.log_dir) / "checkpoints", check=False) is not None


def resume_latest(trainer: Trainer) -> Path | None:
    """Make a trainer go on in the folder of the newest run; of the same job where SLURM requeues.

    Returns:
        The checkpoint to go on from; null, which is told, if that run has none yet.
    """
    logger, folders = run_folders(trainer)
    if isinstance(configured_version(logger), int | str):  # the config names one
        folders = [Path(logger.log_dir)]
    elif (job := requeued_job()) is not None:
        folders = [folder for folder in folders if job_of(folder) == job]
    else:
        folders = [folder for folder in folders if not _evaluated_in(folder)]
    found = last_checkpoint(folders[0] / "checkpoints") if folders else None
    if found is None:
        where = folders[0] if folders else logger.root_dir
        if folders and (any_left := _checkpoints_in(folders[0] / "checkpoints")):
            raise InputError(
                f"no checkpoint in {any_left[0].parent} can be opened, {any_left[0].name} among "
                "them; look at the rights, or give another file as --ckpt_path, or begin anew "
                "without it"
            )
        rank_zero_info(f"{where} holds no checkpoint yet: the run starts from the beginning")
        return None
    if configured_version(logger) is None:
        set_version(logger, int(folders[0].name.removeprefix("version_")))
    for other in trainer.loggers:
        if isinstance(other, WandbLogger):
            other.resume_latest(folders[0])
    rank_zero_info(f"the run goes on from {found}")
    keep_log(logger, found)
    return found


@rank_zero_only
def keep_log(logger: CSVLogger, checkpoint: Path) -> None:
    """Keep what a run has logged up to its checkpoint; Lightning's logger would begin anew.

    Args:
        logger: Not used before.
        checkpoint: Rows of later steps are left out, as the run will log them again.
    """
    for unfinished in checkpoint.parent.glob(f"*{UNFINISHED}"):
        unfinished.unlink()
    log, kept = Path(logger.log_dir) / "metrics.csv", Path(logger.log_dir) / "metrics.kept.csv"
    if log.is_file() and not kept.is_file():  # else a resume was killed between here and the end
        os.replace(log, kept)
    if not kept.is_file():
        return
    steps = open_checkpoint(checkpoint)["global_step"]
    with kept.open(newline="", errors="replace") as file:
        table = csv.DictReader(file)
        names = list(table.fieldnames or [])
        whole = [
            row
            for row in table
            if None not in row and None not in row.values() and row.get("step", "").isdecimal()
        ]
        rows = [row for row in whole if int(row["step"]) < steps]  # a kill may tear the last one
    writer = logger.experiment  # begins an empty log
    with log.with_suffix(UNFINISHED).open("w", newline="") as file:
        copy = csv.DictWriter(file, fieldnames=names)
        copy.writeheader()
        copy.writerows(rows)
    os.replace(log.with_suffix(UNFINISHED), log)
    writer.metrics_keys = names
    kept.unlink()


def _checkpoints_in(folder: Path) -> list[Path]:
    """What is called a checkpoint, whatever it is; the folder itself where it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".ckpt")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return [folder]


def _evaluated_in(folder: Path) -> bool:
    """Whether a folder is that of `validate`, `test` or `predict`, by arguments of theirs."""
    config = folder / "config.yaml"
    if not config.is_file():
        return False
    try:
        settings = yaml.safe_load(config.read_text())
    except (UnicodeDecodeError, yaml.YAMLError):  # a killed run's, written in part
        return False
    return isinstance(settings, dict) and not {"verbose", "return_predictions"}.isdisjoint(settings)


def resume_interrupted_epoch(checkpoint: dict[str, Any]) -> None:
    """Go on inside an epoch that ``max_time`` or ``max_steps`` cut off, which Lightning would end.

    Args:
        checkpoint: Of a run; its progress is mended.
    """
    try:
        loops = checkpoint["loops"]["fit_loop"]
        epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
        counted = [epochs[part][name] for part in ("total", "current") for name in PROGRESS]
        whole = all(type(count) is int and count >= 0 for count in counted)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(
            "the checkpoint does not say where its run was (its loops are damaged); begin anew "
            "from its weights with --model.init_from"
        )
    if batches["is_last_batch"] or epochs["total"]["processed"] == epochs["total"]["completed"]:
        return
    for count in (epochs["total"], epochs["current"]):
        count["processed"] = count["completed"]


def follow_moved_folder(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Make `ModelCheckpoint` know its own files again where their folder has another name now.

    Lightning compares paths as they are written, and would forget which checkpoint was the best
    and write a worse one over it.

    Args:
        trainer: About to go on with ``fit``.
        checkpoint: From the folder that the trainer writes to; its callbacks' states are mended.
    """
    came_from = Path(trainer.ckpt_path or "").resolve().parent
    for callback in trainer.checkpoint_callbacks:
        folder = getattr(callback, "dirpath", None)
        state = checkpoint.get("callbacks", {}).get(callback.state_key, {})
        if not folder or "dirpath" not in state or Path(folder).resolve() != came_from:
            continue

        def moved(path: str, folder: str = folder) -> str:
            return path and os.path.join(folder, os.path.basename(path))

        state["dirpath"] = folder
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = moved(state[name])
        scores = state["best_k_models"]
        state["best_k_models"] = {moved(path): score for path, score in scores.items()}


def requeued_job() -> str | None:
    """The number of the SLURM job that this process goes on with, if SLURM requeued one."""
    return os.environ.get("SLURM_JOB_ID") if os.environ.get("SLURM_RESTART_COUNT") else None


def job_of(folder: Path) -> str | None:
    """The SLURM job that began a run."""
    file = folder / JOB_FILE
    return file.read_text().strip() if file.is_file() else None
