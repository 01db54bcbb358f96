"""Optimizer and learning-rate schedule: timm's parts, and the one place that scales the rate."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from smmix_pl.checks import in_range, one_of
from smmix_pl.errors import InputError

SETTINGS = ("initial_lr", "weight_decay", "betas", "eps")
"""Of an optimizer's groups of weights; the rate itself follows from the schedule."""
LARGEST_LR = 1e6
"""What is above no optimizer means, and overflows float32 before long."""


ADAMS = ((0.9, 0.999), 1e-8)
"""The usual betas and epsilon."""


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are trained. The defaults are the ImageNet recipe of the authors' release.

    Args:
        name: Any optimizer that timm knows.
        lr: Base learning rate, for a global batch of ``lr_batch`` images.
        lr_batch: The rate follows the global batch linearly from here; null takes ``lr`` as it is.
        weight_decay: Applied to weights only: not to biases and norms, nor to what the model itself
            asks to leave out (its class token; of ViTs position embeddings too).
        betas: Averaging coefficients of Adam and its like.
        eps: Their epsilon.
        warmup_epochs: Epochs of linear warm-up.
        warmup_lr: Rate at the first step; not scaled.
        min_lr: Rate at the end of the cosine; not scaled.
        interval: ``epoch`` changes the rate once an epoch, as the release does; ``step`` each step.
    """

    name: str = "adamw"
    lr: float = 5e-4
    lr_batch: int | None = 512
    weight_decay: float = 0.05
    betas: tuple[float, float] = ADAMS[0]
    eps: float = ADAMS[1]
    warmup_epochs: float = 5
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    interval: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        if not 0 < self.lr < LARGEST_LR:
            raise InputError(
                f"the learning rate is {self.lr}; optim.lr must be above 0 and below "
                f"{LARGEST_LR:g} (the paper takes 5e-4)"
            )
        if self.lr_batch is not None and self.lr_batch < 1:
            raise InputError(f"optim.lr_batch is {self.lr_batch}; give a batch size or null")
        for index, beta in enumerate(self.betas):
            if not 0 <= beta < 1:
                raise InputError(f"optim.betas[{index}] is {beta}; it must be in [0, 1)")
        for name in ("weight_decay", "eps", "warmup_epochs"):
            in_range(f"optim.{name}", getattr(self, name), 0)
        for name in ("warmup_lr", "min_lr"):
            in_range(f"optim.{name}", getattr(self, name), 0, LARGEST_LR)
        if "adam" not in self.name and (self.betas, self.eps) != ADAMS:
            raise InputError(
                f"optim.betas and optim.eps are for Adam and its kin; take them out for {self.name}"
            )
        one_of("optim.name", self.name.removeprefix("lookahead_"), list_optimizers())

    def effective_lr(self, global_batch: int) -> float:
        """The peak learning rate for a global batch (devices x nodes x accumulation x batch)."""
        return self.lr if self.lr_batch is None else self.lr * global_batch / self.lr_batch


FUSED_ON = ("cpu", "cuda")
"""Devices that torch has a fused AdamW for."""


def create_optimizer(
    model: nn.Module, recipe: OptimConfig, lr: float, fused: bool = True
) -> Optimizer:
    """Timm's optimizer over decayed and undecayed weights.

    Args:
        model: Its ``no_weight_decay()`` names parameters that are not decayed, beside all 1-D ones.
        recipe: The optimizer's settings.
        lr: Peak learning rate.
        fused: Whether AdamW may take its fused kernel, where there is one.

    Raises:
        InputError: The optimizer refuses, or is not installed.
    """
    settings: dict[str, Any] = {}
    if "adam" in recipe.name:
        settings = {"betas": recipe.betas, "eps": recipe.eps}
    if recipe.name == "adamw" and fused:
        settings["fused"] = all(weight.device.type in FUSED_ON for weight in model.parameters())
    try:
        optimizer = create_optimizer_v2(
            model, opt=recipe.name, lr=lr, weight_decay=recipe.weight_decay, **settings
        )
        if getattr(optimizer, "is_second_order", False):
            raise ValueError("it needs second derivatives, which a training step does not keep")
        return optimizer
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise InputError(
            f"optim.name {recipe.name} cannot be made at a learning rate of {lr:g} ({error}); "
            "adamw is the paper's"
        ) from error


def keep_config_settings(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """What to load of a checkpoint's optimizer: what it has learned; settings are the config's.

    Raises:
        InputError: It is another optimizer, or of other weights.
    """
    groups, own = state.get("param_groups", []), optimizer.param_groups
    alike = len(groups) == len(own) and all(
        saved.keys() == mine.keys() and len(saved["params"]) == len(mine["params"])
        for saved, mine in zip(groups, own, strict=True)
    )
    if not alike:
        raise InputError(
            f"the checkpoint's optimizer is another one than {type(optimizer).__name__}; use the "
            "config it was trained with, or start from its weights with --model.init_from"
        )
    kept = [
        saved | {name: mine[name] for name in SETTINGS if name in mine}
        for saved, mine in zip(groups, own, strict=True)
    ]
    return state | {"param_groups": kept}


def create_schedule(
    optimizer: Optimizer, recipe: OptimConfig, total_steps: int, steps_per_epoch: int
) -> CosineLRScheduler:
    """Linear warm-up, then a cosine down to ``min_lr`` (timm's).

    Args:
        optimizer: Carries the peak rate.
        recipe: The schedule's settings.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of one epoch.
    """
    unit = steps_per_epoch if recipe.interval == "epoch" else 1
    return CosineLRScheduler(
        optimizer,
        t_initial=math.ceil(total_steps / unit),
        lr_min=recipe.min_lr,
        warmup_t=round(recipe.warmup_epochs * steps_per_epoch / unit),
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=recipe.interval == "epoch",
    )
