"""The folder of a run: chosen, claimed, and checked before anything is written to it."""

import os
from contextlib import suppress
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from smmix_pl.lightning_internals import configured_version, is_local, set_version
from smmix_pl.runs.resume import keep_log, resume_latest, should_resume
from smmix_pl.runs.run_files import check_run_folder, read_config
from smmix_pl.runs.wandb_logger import ID_FILE, WandbLogger

SETTINGS = {"config.yaml", "hparams.yaml", ID_FILE}
"""Files that a run writes before its first batch."""


def start_run(trainer: Trainer, ckpt_path: str | None, training: bool) -> str | None:
    """Give a trainer the folder of its run, which is an earlier one if the run resumes.

    Args:
        trainer: Trainer whose loggers have not been used yet.
        ckpt_path: Value of `--ckpt_path`.
        training: True for `fit`, which alone can resume.

    Returns:
        The checkpoint to load.

    Raises:
        InputError: The run cannot resume, or a link leads out of its folder.
        OSError: The folder cannot be created.
    """
    if trainer.loggers and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        _put_csv_logger_first(trainer)
    if training and should_resume(trainer, ckpt_path):
        checkpoint = resume_latest(trainer)
        ckpt_path = None if checkpoint is None else str(checkpoint)
    logger = trainer.loggers[0] if trainer.loggers else None
    if isinstance(logger, CSVLogger) and is_local(logger.root_dir):
        if configured_version(logger) is not None:
            check_run_folder(Path(logger.log_dir))
            if not training:
                keep_log(logger)
        elif trainer.is_global_zero:
            _claim_folder(logger)
    return ckpt_path


def tested_run(checkpoint: str, class_path: str, root: str | None) -> Path | None:
    """Return the folder of the run that wrote a checkpoint, if it was trained on the same data.

    Results on other data, or of a run that cannot be written to, belong in a folder of their own.

    Args:
        checkpoint: Path of the checkpoint.
        class_path: Class of the dataset that is tested.
        root: Its folder.
    """
    folder = Path(os.path.relpath(Path(checkpoint).absolute().parent.parent))
    match read_config(folder):
        case {"data": {"class_path": str(trained), "init_args": dict(arguments)}}:
            same_class = trained.rpartition(".")[2] == class_path.rpartition(".")[2]
            same_root = Path(str(arguments.get("root"))).name == Path(str(root)).name
            return folder if same_class and same_root and os.access(folder, os.W_OK) else None
    return None  # not the folder of a run


def discard_run(trainer: Trainer) -> None:
    """Remove the files of a run that failed before its first batch, with folders left empty.

    A folder that holds anything but settings is kept.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if not trainer.is_global_zero or not isinstance(logger, CSVLogger):
        return
    folder = Path(logger.log_dir)
    if not is_local(folder) or not folder.is_dir():
        return
    files = list(folder.iterdir())
    if {path.name for path in files} <= SETTINGS:
        for path in files:
            path.unlink()
    for other in trainer.loggers:
        if isinstance(other, WandbLogger):
            other.discard()
    with suppress(OSError):  # the first folder that is not empty
        for empty in (folder, *folder.parents[: len(Path(logger.name or "").parts) + 1]):
            empty.rmdir()


def _put_csv_logger_first(trainer: Trainer) -> None:
    """Make the first logger one with a folder per run.

    The others have one folder for all runs, in which config, results, and figures would overwrite
    those of the run before.
    """
    first, *others = trainer.loggers
    if isinstance(first, CSVLogger | TensorBoardLogger):
        return
    own = [logger for logger in others if isinstance(logger, CSVLogger)][:1]
    own = own or [CSVLogger(first.save_dir or trainer.default_root_dir, name=first.name)]
    trainer.loggers = [*own, *(logger for logger in trainer.loggers if logger not in own)]


def _claim_folder(logger: CSVLogger) -> None:
    """Create the run's version folder in one step, so that simultaneous runs never share one."""
    root = Path(logger.root_dir)
    root.mkdir(parents=True, exist_ok=True)
    version = int(logger.version)
    while True:
        try:
            (root / f"version_{version}").mkdir()
            break
        except FileExistsError:
            version += 1
    set_version(logger, version)
