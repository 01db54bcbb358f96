"""What training costs: images per second, where a step's time goes, peak memory."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from smmix_pl.step_timer import StepTimer

GIB = 2**30


class Throughput(Callback):
    """Logs images per second over all devices, the parts of a step's time, and peak memory.

    - ``images_per_second``, timed from one step's end to the next on the host; the device is not
      waited for, so single values lead or lag, and their mean is right.
    - ``time/data`` (the host waits for a batch), ``time/guide``, ``time/mix`` (without
      motivating) and ``time/train`` (forward, backward, optimizer), in seconds, of the latest step
      that the device has finished.
    - ``memory/peak_gib``, of the GPU, or of this process where there is none.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin; a run that goes on in the middle of an epoch does not start it."""
        self._since = time.perf_counter()
        self._clock = StepTimer.running = StepTimer(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the time between epochs."""
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the time that validation took."""
        self._since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        self._waited = time.perf_counter() - self._since
        self._clock.begin_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the costs of one batch."""
        now = time.perf_counter()
        images = len(batch[0]) * trainer.world_size
        costs = {
            "images_per_second": images / (now - self._since),
            "time/data": self._waited,
            "memory/peak_gib": peak_memory(pl_module.device) / GIB,
        }
        self._since = now
        if (spans := self._clock.end_step()) is not None:
            costs["time/guide"] = spans["motivate"]
            costs["time/mix"] = spans["mix"] - spans["motivate"]
            costs["time/train"] = spans["step"] - spans["mix"]
        for name, cost in costs.items():
            on_device = torch.full((), cost, device=pl_module.device)  # without waiting
            pl_module.log(name, on_device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        StepTimer.running = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the clock."""
        StepTimer.running = None


def peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU's tensors, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts KiB
