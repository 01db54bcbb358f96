"""W&B logging that never prompts: online if a login is found, offline otherwise."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_warn
from pydantic import ValidationError

from smmix_pl.checks import one_of
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import set_wandb_id, wandb_init_args
from smmix_pl.runs.run_files import write_atomic

ID_FILE = ".wandb_id"
MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")
NAME_LENGTH = 80
"""Characters of a group's name, at most; W&B accepts 128."""
TAG_LENGTH = 64
"""Characters of a tag, at most."""


class WandbLogger(loggers.WandbLogger):
    """Lightning's WandbLogger, which never prompts for a login.

    A killed run loses at most the last second of its log.

    Args:
        project: W&B project.
        name: Run name. Null derives it from backbone, mixer, data, changed settings, and seed.
        save_dir: Folder for W&B's own files.
        mode: `auto` is online if a W&B login is found and offline otherwise. The environment
            variable `WANDB_MODE` takes precedence. Upload offline runs with `wandb sync`.
        **kwargs: Further arguments of `wandb.init`, such as `group` or `tags`.
    """

    def __init__(
        self,
        project: str = "smmix_pl",
        name: str | None = None,
        save_dir: str = "runs",
        mode: Literal["auto", "online", "offline"] = "auto",
        **kwargs: Any,
    ) -> None:
        mode = os.environ.get("WANDB_MODE") or mode  # type: ignore[assignment]
        if mode == "auto":
            mode = "online" if _logged_in() else "offline"
        one_of("WANDB_MODE", mode, MODES)
        os.makedirs(save_dir, exist_ok=True)
        # by default W&B writes to the disk every 15 seconds, which a killed run would lose
        offline = mode == "offline"  # there is no page to announce; warnings are still printed
        settings = wandb.Settings(x_transaction_log_flush_interval=1.0, quiet=offline)
        kwargs["settings"] = kwargs.get("settings") or settings
        if offline:
            wandb.setup()  # would undo the next line if it came later
            wandb.termsetup(wandb.Settings(show_info=False), None)
        # with offline=True, Lightning would change WANDB_MODE, which W&B warns of
        super().__init__(project=project, name=name, save_dir=save_dir, mode=mode, **kwargs)
        if wandb_init_args(self).get("anonymous") is None:  # deprecated, and so is passing None
            wandb_init_args(self).pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which is started by the first access.

        Raises:
            InputError: W&B rejects a setting or the login.
        """
        try:
            return loggers.WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
        except (wandb.Error, TypeError, ValidationError) as error:
            raise InputError(
                f"trainer.logger: W&B could not start the run ({error}). Fix its arguments or the "
                "WANDB_* variables, or set WANDB_MODE=offline."
            ) from error

    def name_after(
        self, job: str, subject: Sequence[str], changes: Sequence[str], seed: int
    ) -> None:
        """Set name, group, tags, and job type, unless the user has set them.

        Call it before the run starts. Seeds share a group. The job type is the command, such as
        `fit` or `test`, so a later test can be distinguished from its training.

        Args:
            job: The command.
            subject: Backbone, mixer, and dataset, which are also the tags.
            changes: Settings that differ from the defaults. Those that do not fit into the name are
                represented by a hash of all.
            seed: Seed of the training.
        """
        words = " ".join((*subject, *changes))
        end = f" {_digest(words)}"
        group = shorten(words, NAME_LENGTH, placeholder=end, break_on_hyphens=False)
        group = group.replace(" ", "-")
        tags = [word[:TAG_LENGTH] for word in subject]
        defaults = {"name": f"{group}-seed{seed}", "group": group, "tags": tags, "job_type": job}
        arguments = wandb_init_args(self)
        for key, value in defaults.items():
            arguments[key] = arguments.get(key) or value

    def keep_id(self, folder: Path) -> None:
        """Store the W&B run id in the run folder, for `resume_latest`."""
        write_atomic(folder / ID_FILE, str(self.experiment.id).encode())

    def mark_preempting(self) -> None:
        """Report that the run will stop and can resume, so that its sweep runs it again."""
        if wandb.run is not None:
            wandb.run.mark_preempting()

    def discard(self) -> None:
        """Finish the run as failed and, if it was offline, remove its files."""
        run = wandb.run
        if run is None or run.disabled:
            return
        files = Path(run.dir).parent
        run.finish(exit_code=1)
        if run.offline:
            shutil.rmtree(files)
            for link in files.parent.iterdir():
                if link.is_symlink() and not link.exists():  # to the files of this run
                    link.unlink()
            with suppress(OSError):  # there are other runs
                files.parent.rmdir()

    def resume_latest(self, folder: Path) -> None:
        """Continue the W&B run whose id is stored in a run folder, if there is one.

        Raises:
            InputError: The file does not contain a run id, which W&B uses in folder names.
        """
        file = folder / ID_FILE
        if not file.is_file() or wandb_init_args(self).get("id"):
            return
        run_id = file.read_text(errors="replace").strip()
        if not re.fullmatch(r"[\w-]{1,128}", run_id):
            raise InputError(f"{file}: not a W&B run id ({run_id[:40]!r}). Remove the file.")
        set_wandb_id(self, run_id)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:6]


@contextmanager
def finished_run() -> Iterator[None]:
    """Finish the W&B run that is started inside, so that a later one in this process is another.

    W&B finishes it at the exit of the process as well, but announces offline runs there.
    """
    earlier, status = wandb.run, 1
    try:
        yield
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        if wandb.run is not None and wandb.run is not earlier:
            wandb.run.finish(exit_code=status)


def _logged_in() -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except (wandb.Error, ValueError) as error:  # for example a malformed key
        rank_zero_warn(f"W&B login failed ({error}). The run is logged offline.")
        return False
