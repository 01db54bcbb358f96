"""Training speed for logs and progress bar."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs images per second over all devices, as ``images_per_second``.

    Timed from one optimiser step's end to the next on the host; the device is not waited for, so
    single values lead or lag, and their mean is right.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin; a run that goes on in the middle of an epoch does not start it."""
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the time that validation took."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the speed of one batch."""
        now = time.perf_counter()
        images = len(batch[0]) * trainer.world_size
        speed = torch.full((), images / (now - self._since), device=pl_module.device)  # no waiting
        pl_module.log("images_per_second", speed, prog_bar=True)
        self._since = now
