"""Cost of training: throughput, the time of each part of a step, and peak memory."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from smmix_pl.logged_steps import logs_next_step, logs_this_step
from smmix_pl.step_timer import StepTimer

GIB = 2**30


class Throughput(Callback):
    """Logs throughput, a time breakdown of the logged steps, and peak memory.

    Nothing is measured on the device at steps that are not logged.

    Logged keys:
        `images_per_second`: Over all devices and all steps since the last logged one. Validation is
            excluded. Measured on the host without synchronization.
        `time/data`: Seconds that the host waited for the batch.
        `time/guide`, `time/mix`, `time/train`: Seconds of the guide pass, of mixing without it, and
            of forward, backward, and optimizer. The first two need a mixer. On a GPU, these belong
            to the latest logged step that the GPU has finished.
        `memory/peak_gib`: Peak allocated GPU memory, or resident memory of the process on CPU.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks. A run that resumes within an epoch has no epoch start."""
        self._timer = StepTimer(pl_module.device)
        self._images, self._seconds = 0, 0.0
        self._step_end = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude the time between epochs."""
        self._step_end = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude the time of validation."""
        self._step_end = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start timing the parts of a step that will be logged."""
        if logs_next_step(trainer):
            self._waited = time.perf_counter() - self._step_end
            StepTimer.running = self._timer
            self._timer.begin_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images, and log at a step that is logged."""
        now = time.perf_counter()
        self._images += len(batch[0])
        self._seconds += now - self._step_end
        self._step_end = now
        if not logs_this_step(trainer):
            return
        StepTimer.running = None
        values = {
            "images_per_second": self._images * trainer.world_size / self._seconds,
            "time/data": self._waited,
            "memory/peak_gib": peak_memory(pl_module.device) / GIB,
        }
        self._images, self._seconds = 0, 0.0
        if (spans := self._timer.end_step()) is not None:
            if "mix" in spans:
                values["time/guide"] = spans["guide"]
                values["time/mix"] = spans["mix"] - spans["guide"]
            values["time/train"] = spans["step"] - spans["mix"]
        for name, value in values.items():
            pl_module.log(name, torch.full((), value, device=pl_module.device))  # no host wait

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the timer if a step was interrupted."""
        StepTimer.running = None


def peak_memory(device: torch.device) -> int:
    """Return the peak allocated memory of a GPU, or the peak memory of this process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts KiB
