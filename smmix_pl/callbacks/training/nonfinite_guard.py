"""Stop or skip a training step whose loss or gradient is NaN or infinite."""

from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.utils.data import Subset

from smmix_pl.base_module import BaseModule
from smmix_pl.checks import in_range, one_of
from smmix_pl.data.samplers import TrainingSampler
from smmix_pl.errors import InputError
from smmix_pl.logged_steps import logs_this_step


class TrainedBatch(NamedTuple):
    """A batch since the last optimizer step."""

    epoch: int
    batch_idx: int
    notes: dict[str, float]
    loss: Tensor


class NonFiniteGuard(Callback):
    """Checks losses and gradients for NaN and infinity before every optimizer step.

    The host waits for the device once per optimizer step. fp16 gradients that overflow are handled
    by the gradient scaler, which skips the step and lowers its scale. They stop the run only after
    `patience` consecutive steps.

    Logged keys:
        `train/skipped_steps`: Number of skipped steps, with `action="skip"`.

    Args:
        action: `stop` raises an error that identifies the batch. `skip` leaves weights and
            optimizer state unchanged, while the schedule still advances. `off` checks nothing.
        patience: Number of consecutive non-finite steps that stops the run with any action.
    """

    def __init__(self, action: Literal["stop", "skip", "off"] = "stop", patience: int = 20) -> None:
        in_range("finite.patience", patience, 1)
        one_of("finite.action", action, ("stop", "skip", "off"))
        self.action = action
        self.patience = patience
        self.skipped = 0
        self.consecutive = 0
        self._batches: list[TrainedBatch] = []

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Store the loss of a batch without reading it from the device."""
        assert isinstance(pl_module, BaseModule)
        place = (trainer.current_epoch, trainer.fit_loop.batch_idx)
        self._batches.append(TrainedBatch(*place, pl_module.notes, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Check losses and gradients; stop or skip the step if one is not finite.

        Raises:
            InputError: A value is not finite, and the step is not skipped.
        """
        batches, self._batches = self._batches, []
        if self.action == "off":
            return
        local = _local_gradients(optimizer)
        checks = _are_finite(batches, local, trainer.scaler is not None).float()
        if trainer.world_size > 1:
            checks = trainer.strategy.reduce(checks, reduce_op="min")
        losses, gradients = checks.tolist()
        finite = losses and gradients
        self.consecutive = 0 if finite else self.consecutive + 1
        left_to_scaler = losses and trainer.scaler is not None and self.consecutive < self.patience
        if finite or left_to_scaler:
            return
        problem = _problem(trainer, batches, pl_module)
        if self.action == "stop" or self.consecutive >= self.patience:
            repeated = f", {self.consecutive} steps in a row" if self.consecutive > 1 else ""
            raise InputError(
                f"{problem}{repeated}. Lower model.optim.lr or trainer.gradient_clip_val, check "
                "the images, or skip such steps with --finite.action=skip."
            )
        self.skipped += 1
        rank_zero_warn(f"{problem}. The step is skipped ({self.skipped} in this run).")
        optimizer.zero_grad()  # an optimizer ignores weights without gradients

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the number of skipped steps."""
        if self.action == "skip" and logs_this_step(trainer):
            pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"skipped": self.skipped, "in_a_row": self.consecutive}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters."""
        self.skipped, self.consecutive = state_dict["skipped"], state_dict["in_a_row"]


def _local_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return this rank's non-empty parts of all gradients."""
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    parts = [_local(weight.grad) for weight in weights if weight.grad is not None]
    return [part for part in parts if part.numel()]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _are_finite(batches: list[TrainedBatch], gradients: list[Tensor], scaled: bool) -> Tensor:
    """Return two booleans on the device: all losses are finite, all gradients are finite.

    A gradient scaler may scale a finite loss to infinity. Of scaled losses, only NaN counts.
    """
    losses = torch.stack([batch.loss.float() for batch in batches])
    fine = ~losses.isnan() if scaled else losses.isfinite()
    largest = get_total_norm(gradients, torch.inf) if gradients else losses.new_zeros(())
    return torch.stack((fine.all(), largest.isfinite()))


def _problem(trainer: Trainer, batches: list[TrainedBatch], pl_module: LightningModule) -> str:
    """Describe what is not finite, as seen by the first rank whose own loss is affected."""
    own = _local_problem(trainer, batches, pl_module)
    if trainer.world_size == 1:
        return own[1]
    problems: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(problems, own)
    return min(problems, key=lambda problem: not problem[0])[1]


def _local_problem(
    trainer: Trainer, batches: list[TrainedBatch], pl_module: LightningModule
) -> tuple[bool, str]:
    """Return whether this rank's loss is affected, and a description."""
    affected = [batch for batch in batches if not bool(batch.loss.isfinite())]
    batch = affected[0] if affected else batches[-1]
    what = f"train/loss={float(batch.loss)}" if affected else _first_bad_gradient(pl_module)
    rank = f"rank {trainer.global_rank}, " if trainer.world_size > 1 else ""
    return bool(affected), (
        f"{what}: not finite in epoch {batch.epoch}, batch {batch.batch_idx} ({rank}optimizer step "
        f"{trainer.global_step}, {_notes(pl_module, batch)}, {_images(trainer, batch.batch_idx)})"
    )


def _notes(pl_module: LightningModule, batch: TrainedBatch) -> str:
    notes = (f", {name.replace('_', ' ')} {value:g}" for name, value in batch.notes.items())
    mixer = getattr(pl_module, "mixer", None)
    step = "not mixed" if mixer is None else f"mixed by {type(mixer).__name__}"
    return step + "".join(notes)


def _first_bad_gradient(pl_module: LightningModule) -> str:
    for name, weight in pl_module.named_parameters():
        if weight.grad is not None and not bool(_local(weight.grad).isfinite().all()):
            return f"gradient of {name}"
    return "gradient"


def _images(trainer: Trainer, batch_idx: int) -> str:
    """Return the indices of the first eight images of a batch in the training set."""
    loader: Any = trainer.train_dataloader
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, TrainingSampler):
        return "images unknown"
    size = loader.batch_size
    indices = sampler.order()[batch_idx * size : (batch_idx + 1) * size]
    if isinstance(sampler.dataset, Subset):  # a validation split is held out
        indices = [sampler.dataset.indices[index] for index in indices]
    return f"images #{', #'.join(map(str, indices[:8]))}{' ...' if size > 8 else ''}"
