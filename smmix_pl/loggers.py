"""W&B without surprises: online for those who are logged in, offline for everyone else."""

import os
from typing import Any, Literal

import wandb
from lightning.pytorch import loggers


class WandbLogger(loggers.WandbLogger):
    """Lightning's WandbLogger that never asks for an account.

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
            mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
        mode = os.environ.get("WANDB_MODE", mode)  # type: ignore[assignment]
        os.makedirs(save_dir, exist_ok=True)
        super().__init__(
            project=project,
            name=name,
            save_dir=save_dir,
            offline=mode == "offline",
            mode=mode,
            **kwargs,
        )
