"""A step clock, batches in memory, and a plain step: what overhead.py names in configs."""

import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from timing import training_loss
from torch.utils.data import DataLoader

from smmix_pl import Digits, SMMixModule
from smmix_pl.module import Batch
from smmix_pl.optim import create_optimizer


class StepClock(Callback):
    """Notes when each step of the latest run began. Should be the first callback."""

    now: ClassVar[Callable[[], float]] = time.perf_counter
    starts: ClassVar[list[float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last run."""
        self.starts.clear()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the time."""
        self.starts.append(StepClock.now())


class DigitsInMemory(Digits):
    """The digits, whose training batches are loaded and normalized once per process."""

    batches: ClassVar[list[Batch]] = []

    def train_dataloader(self) -> Any:
        """Return the batches of the first epoch, in order."""
        if not self.batches:
            for batch in super().train_dataloader():
                self.batches.append(super().on_after_batch_transfer(batch, 0))
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Return training batches as they are."""
        return batch if batch[0].is_floating_point() else super().on_after_batch_transfer(batch, 0)


class PlainModule(LightningModule):
    """The step of the plain loop as a LightningModule that does nothing else.

    Args:
        module: Module whose model, mixer, and optimizer it uses.
    """

    def __init__(self, module: SMMixModule) -> None:
        super().__init__()
        self.module = module

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        rng = np.random.default_rng((0, self.current_epoch, batch_idx))
        return training_loss(self.module, self.module.mixer, *batch, rng)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer without a schedule."""
        return create_optimizer(self.module.backbone, self.module.optim, lr=1e-3)
