"""W&B without surprises: online for those who are logged in, offline for everyone else."""

import os
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_warn
from pydantic import ValidationError

from smmix_pl.checks import one_of
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import set_wandb_id, wandb_init_args

ID_FILE = ".wandb_id"
MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")


class WandbLogger(loggers.WandbLogger):
    """Lightning's WandbLogger that never asks for an account; a killed run loses a second at most.

    Args:
        project: W&B project.
        name: Run name; null lets W&B invent one.
        save_dir: Folder for W&B's own files.
        mode: ``auto`` is online if a W&B login is found and offline otherwise; the environment
            variable ``WANDB_MODE`` wins over it. Offline runs are sent later with ``wandb sync``.
        **kwargs: Further arguments of `wandb.init`, such as ``group`` or ``tags``.
    """

    def __init__(
        self,
        project: str = "smmix_pl",
        name: str | None = None,
        save_dir: str = "runs",
        mode: Literal["auto", "online", "offline"] = "auto",
        **kwargs: Any,
    ) -> None:
        if mode == "auto":
            mode = "online" if _logged_in() else "offline"
        mode = os.environ.get("WANDB_MODE") or mode  # type: ignore[assignment]
        one_of("WANDB_MODE", mode, MODES)
        os.makedirs(save_dir, exist_ok=True)
        # W&B writes to the disk every 15 seconds, and a killed run loses what was logged since
        kwargs.setdefault("settings", wandb.Settings(x_transaction_log_flush_interval=1.0))
        super().__init__(
            project=project,
            name=name,
            save_dir=save_dir,
            offline=mode == "offline",
            mode=mode,
            **kwargs,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which begins here.

        Raises:
            InputError: W&B refuses a setting, or knows no account.
        """
        try:
            return loggers.WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]
        except (wandb.Error, TypeError, ValidationError) as error:
            raise InputError(
                f"W&B does not begin the run ({error}); mend trainer.logger or WANDB_ variables, "
                "or set WANDB_MODE=offline"
            ) from error

    def name_after(self, job: str, backbone: str, mixer: str, data: str, seed: int) -> None:
        """Name, group and tag the run, as far as the user has not; seeds share a group.

        The job type is ``fit``, ``test`` and so on, so that a later test is told from its training.

        To be called before the run begins.
        """
        what = (backbone, mixer, data)
        ours = {"name": "-".join((*what, f"seed{seed}")), "group": "-".join(what), "tags": what}
        ours["job_type"] = job
        for key, value in ours.items():
            if not wandb_init_args(self).get(key):
                wandb_init_args(self)[key] = value

    def keep_id(self, folder: Path) -> None:
        """Leave the run's W&B id in the run's folder, for `resume_latest`."""
        (folder / ID_FILE).write_text(self.experiment.id)

    def resume_latest(self, folder: Path) -> None:
        """Go on with the W&B run that a run's folder names, if it names one."""
        file = folder / ID_FILE
        if file.is_file() and not wandb_init_args(self).get("id"):
            set_wandb_id(self, file.read_text().strip())


def _logged_in() -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except (wandb.Error, ValueError) as error:  # a key that cannot be one
        rank_zero_warn(f"W&B does not accept the key that it finds ({error}); the run is offline")
        return False
