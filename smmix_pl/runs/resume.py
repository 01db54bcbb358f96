"""Resuming: which run and checkpoint to resume from, and the log that is continued."""

import csv
import math
import os
import warnings
from io import StringIO
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import configured_version, set_version
from smmix_pl.runs.checkpoint_io import last_checkpoint, read_checkpoint
from smmix_pl.runs.run_files import UNFINISHED, check_run_folder, read_config, write_atomic
from smmix_pl.runs.slurm import job_of, requeued_job
from smmix_pl.runs.wandb_logger import WandbLogger


def run_folders(trainer: Trainer) -> tuple[CSVLogger, list[Path]]:
    """Return the logger that names the run folder, and the folders of earlier runs, newest first.

    Raises:
        InputError: The first logger is not a CSVLogger.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if not isinstance(logger, CSVLogger):
        raise InputError(
            "--ckpt_path=last: needs the run folders of a CSVLogger. Put one first in "
            "trainer.logger, or pass a checkpoint file."
        )
    numbered = [
        (int(number), path)
        for path in Path(logger.root_dir).glob("version_*")
        if (number := path.name.removeprefix("version_")).isdecimal()
    ]
    return logger, [path for _, path in sorted(numbered, reverse=True)]


def should_resume(trainer: Trainer, ckpt_path: str | None) -> bool:
    """Return True if a run should resume: it was requested, or the old run would be overwritten.

    Args:
        trainer: Trainer that is about to run `fit`.
        ckpt_path: Value of `--ckpt_path`.
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
    """Set up a trainer to continue in the folder of the newest run.

    If SLURM requeued the job, it is the newest run of that job. Runs of other commands than `fit`
    are ignored.

    Returns:
        The checkpoint to resume from. None, which is logged, if the run has no checkpoint yet.

    Raises:
        InputError: No checkpoint of the run can be opened, or a link leads out of its folder.
    """
    logger, folders = run_folders(trainer)
    if isinstance(configured_version(logger), int | str):
        folders = [Path(logger.log_dir)]
    elif (job := requeued_job()) is not None:
        folders = [folder for folder in folders if job_of(folder) == job]
    else:
        folders = [folder for folder in folders if not _is_evaluation(folder)]
    if folders:
        check_run_folder(folders[0])
    found = last_checkpoint(folders[0] / "checkpoints") if folders else None
    if found is None:
        _require_no_checkpoints(folders)
        rank_zero_info(f"No checkpoint in {folders[0] if folders else logger.root_dir} yet.")
        return None
    if configured_version(logger) is None:
        set_version(logger, int(folders[0].name.removeprefix("version_")))
    for other in trainer.loggers:
        if isinstance(other, WandbLogger):
            other.resume_latest(folders[0])
    rank_zero_info(f"Resuming from {found}")
    keep_log(logger, found)
    return found


@rank_zero_only
def keep_log(logger: CSVLogger, checkpoint: Path | None = None) -> None:
    """Keep the rows of metrics.csv. Lightning's logger would start a new file.

    Args:
        logger: Logger that has not been used yet.
        checkpoint: Checkpoint to resume from. Rows of later steps are dropped, because the run logs
            them again. None, for a test in the folder of the run, keeps all.

    Raises:
        InputError: The log or the checkpoint is corrupt.
    """
    for unfinished in checkpoint.parent.glob(f"*{UNFINISHED}") if checkpoint else ():
        if unfinished.is_file():
            unfinished.unlink()
    log, kept = Path(logger.log_dir) / "metrics.csv", Path(logger.log_dir) / "metrics.kept.csv"
    if log.is_file() and not kept.is_file():  # otherwise an earlier resume was killed below
        os.replace(log, kept)
    if not kept.is_file():
        return
    steps = math.inf if checkpoint is None else _saved_steps(checkpoint)
    names, rows = _rows_before(kept, steps)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Experiment logs directory")  # nothing in it is lost
        writer = logger.experiment  # removes metrics.csv
    content = StringIO(newline="")
    copy = csv.DictWriter(content, fieldnames=names)
    copy.writeheader()
    copy.writerows(rows)
    write_atomic(log, content.getvalue().encode(errors="surrogateescape"))
    writer.metrics_keys = names
    kept.unlink()


def _rows_before(log: Path, steps: float) -> tuple[list[str], list[dict[str, str]]]:
    """Return column names and the complete rows before a step. A kill may truncate the last row."""
    try:
        with log.open(newline="", errors="surrogateescape") as file:
            table = csv.DictReader(file)
            names = list(table.fieldnames or [])
            rows = [
                row
                for row in table
                if None not in row and None not in row.values() and row.get("step", "").isdecimal()
            ]
    except csv.Error as error:
        raise InputError(f"{log}: not a log of metrics ({error}). Remove it.") from error
    return names, [row for row in rows if int(row["step"]) < steps]


def _saved_steps(checkpoint: Path) -> int:
    steps = read_checkpoint(checkpoint).get("global_step")
    if type(steps) is not int:
        raise InputError(
            f"{checkpoint}: corrupt checkpoint (global_step={steps}). Pass an older one as "
            "--ckpt_path."
        )
    return steps


def _require_no_checkpoints(folders: list[Path]) -> None:
    """Raise an error if the newest run has checkpoints, none of which could be opened."""
    if not folders:
        return
    folder = folders[0] / "checkpoints"
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == ".ckpt")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        names = ["a folder that cannot be listed"]
    if names:
        raise InputError(
            f"--ckpt_path=last: no checkpoint in {folder} can be opened (tried {', '.join(names)})."
            " Check permissions, pass another file, or omit --ckpt_path to start a new run."
        )


def _is_evaluation(folder: Path) -> bool:
    """Return True if a run folder was written by `validate`, `test`, or `predict`."""
    return not {"verbose", "return_predictions"}.isdisjoint(read_config(folder))
