"""Loss and gradient are numbers, or the run stops in the step where they are not."""

from typing import Any, Literal, NamedTuple, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.data import Subset

from smmix_pl.checks import one_of
from smmix_pl.data.samplers import TrainingSampler
from smmix_pl.errors import InputError
from smmix_pl.module import SMMixModule


class Seen(NamedTuple):
    """One batch since the last optimizer step."""

    epoch: int
    batch_idx: int
    mixing: str
    loss: Tensor


class NonFiniteGuard(Callback):
    """Holds every loss and gradient against NaN and infinity before the weights see them.

    The host waits for the device once an optimizer step. Gradients that overflow in fp16 are the
    gradient scaler's, which leaves such steps out and lowers its scale; they stop the run after
    ``patience`` steps in a row, when it cannot be the scale.

    Args:
        action: ``stop`` the run with the batch's identity, or ``skip`` the step: the weights and
            the optimizer stay as they are, the schedule goes on; counted and logged as
            ``train/skipped_steps``. ``off`` looks at nothing.
        patience: This many skipped steps in a row stop the run all the same.
    """

    def __init__(self, action: Literal["stop", "skip", "off"] = "stop", patience: int = 20) -> None:
        if patience < 1:
            raise InputError(f"finite.patience is {patience}; it must be at least 1")
        one_of("finite.action", action, ("stop", "skip", "off"))
        self.action = action
        self.patience = patience
        self.skipped = 0
        self.in_a_row = 0
        self._seen: list[Seen] = []

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss of a batch, without looking at it."""
        assert isinstance(pl_module, SMMixModule)
        batch_idx = trainer.fit_loop.batch_idx
        self._seen.append(Seen(trainer.current_epoch, batch_idx, pl_module.mixing, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at losses and gradients, and stop or skip."""
        seen, self._seen = self._seen, []
        if self.action == "off":
            return
        finite = _finite([one.loss for one in seen], _gradients(optimizer))
        losses, gradients = finite.to(torch.int32).tolist()
        if trainer.world_size > 1:
            losses, gradients = trainer.strategy.reduce(finite.float(), reduce_op="min").tolist()
        bad = not losses or not gradients
        self.in_a_row = self.in_a_row + 1 if bad else 0
        scaled_away = losses and trainer.scaler is not None and self.in_a_row < self.patience
        if not bad or scaled_away:
            return
        told = _first_told(trainer, _told(trainer, seen, pl_module))
        if self.action == "stop" or self.in_a_row >= self.patience:
            self._stop(told)
        self.skipped += 1
        rank_zero_warn(f"{told}; the step is skipped, the {self.skipped}. of this run")
        optimizer.zero_grad()  # an optimizer leaves weights without gradients alone

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the count."""
        if self.action == "skip":
            pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """The count, for a resumed run."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def _stop(self, told: str) -> NoReturn:
        many = f", {self.in_a_row} steps in a row" if self.in_a_row > 1 else ""
        raise InputError(
            f"{told}{many}; lower model.optim.lr or trainer.gradient_clip_val, look at the images, "
            "or leave such steps out with --finite.action skip"
        )


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    """What this rank keeps of all gradients; of some that are sharded it keeps nothing."""
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    parts = [_own(weight.grad) for weight in weights if weight.grad is not None]
    return [part for part in parts if part.numel()]


def _own(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _finite(losses: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Whether all losses, and whether all gradients are: two truth values on the device."""
    largest = list(torch._foreach_norm(gradients, torch.inf)) if gradients else losses
    both = (torch.stack([value.float() for value in values]) for values in (losses, largest))
    return torch.stack([values.isfinite().all() for values in both])


def _first_told(trainer: Trainer, told: str) -> str:
    """What the first rank whose own loss is wrong has to say, or else the first rank."""
    if trainer.world_size == 1:
        return told
    every: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, told)
    return min(every, key=lambda one: ": the loss is" not in one)


def _told(trainer: Trainer, seen: list[Seen], pl_module: LightningModule) -> str:
    """What is wrong and with which batch, as far as this rank knows."""
    rank = f"rank {trainer.global_rank}: " if trainer.world_size > 1 else ""
    for one in seen:
        if not bool(one.loss.isfinite()):
            what = f"the loss is {float(one.loss)}"
            break
    else:
        one = seen[-1]
        broken = [
            name
            for name, weight in pl_module.named_parameters()
            if weight.grad is not None and not bool(_own(weight.grad).isfinite().all())
        ]
        what = f"the gradient of {broken[0] if broken else 'a weight'} is not finite"
    return (
        f"{rank}{what} in epoch {one.epoch}, batch {one.batch_idx} (optimizer step "
        f"{trainer.global_step}, {one.mixing or 'unmixed'}, {_images(trainer, one.batch_idx)})"
    )


def _images(trainer: Trainer, batch_idx: int, shown: int = 8) -> str:
    """The first images of a batch by their places in the training set."""
    loader: Any = trainer.train_dataloader
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, TrainingSampler):
        return "images unknown"
    size = loader.batch_size
    places = sampler.order()[batch_idx * size : (batch_idx + 1) * size]
    if isinstance(sampler.dataset, Subset):  # where images are held out, or left out
        places = [sampler.dataset.indices[place] for place in places]
    return f"images #{', #'.join(map(str, places[:shown]))}{' ...' if size > shown else ''}"
