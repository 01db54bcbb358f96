"""Optimizer and learning-rate schedule: timm's, with the learning rate scaled in one place."""

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from smmix_pl.checks import in_range, one_of
from smmix_pl.errors import InputError

GROUP_SETTINGS = (
    *("initial_lr", "weight_decay", "betas", "eps", "amsgrad", "maximize", "foreach", "fused"),
    *("capturable", "differentiable", "lr_scale"),
)
"""Settings of a parameter group that come from the config on resume; `lr` follows the schedule."""
MAX_LR = 1e6
"""Larger learning rates are mistakes and soon overflow float32."""
ADAM_DEFAULTS: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
"""Other values are passed to any optimizer that has the setting."""
FUSED_DEVICES = ("cpu", "cuda")
"""Devices for which torch has a fused AdamW."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule. The defaults are the authors' ImageNet recipe.

    Args:
        name: Name of an optimizer in timm.
        lr: Base learning rate for a global batch of `lr_batch` images.
        lr_batch: Reference batch size for linear scaling: the effective learning rate is
            `lr` times the global batch size divided by this. `null` uses `lr` unscaled.
        weight_decay: Not applied to biases, normalization layers, and what the model excludes (its
            class token and, in ViTs, position embeddings).
        betas: Averaging coefficients, for Adam and its variants.
        eps: Epsilon, for Adam and its variants.
        schedule: `cosine`, or for dense tasks `poly` (a power of the remaining run) or `steps`.
        power: Exponent of `poly`.
        milestones: Fractions of the run at which `steps` divides the learning rate by 10.
        warmup_epochs: Epochs of linear warm-up.
        warmup_steps: Optimizer steps of linear warm-up, instead of `warmup_epochs`. It needs
            `interval=step`.
        warmup_lr: Learning rate of the first step. Not scaled.
        warmup_prefix: Start the cosine after the warm-up, so that it begins at the effective
            learning rate. Otherwise, as is timm's default, the warm-up replaces the beginning of a
            cosine over the complete run. After 5 warm-up epochs of 300, this cosine
            is at 0.999 of the rate; after 5 of 20, at 0.85.
        min_lr: Learning rate at the end of `cosine` and `poly`. Not scaled.
        layer_decay: Factor in (0, 1] between the learning rates of one layer and the layer below
            it, for fine-tuning (timm's groups of layers, after BEiT). The heads have the full rate.
        interval: Update the learning rate every `step`, or every `epoch` as the authors do.
    """

    name: str = "adamw"
    lr: float = 5e-4
    lr_batch: int | None = 512
    weight_decay: float = 0.05
    betas: tuple[float, float] = ADAM_DEFAULTS["betas"]
    eps: float = ADAM_DEFAULTS["eps"]
    schedule: Literal["cosine", "poly", "steps"] = "cosine"
    power: float = 1.0
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    warmup_epochs: float = 5.0
    warmup_steps: int | None = None
    warmup_lr: float = 1e-6
    warmup_prefix: bool = False
    min_lr: float = 1e-5
    layer_decay: float | None = None
    interval: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        if not 0 < self.lr < MAX_LR:
            raise InputError(
                f"model.optim.lr={self.lr}: must be above 0 and below {MAX_LR:g}. The paper uses "
                "5e-4."
            )
        if self.lr_batch is not None:
            in_range("model.optim.lr_batch", self.lr_batch, 1, hint="null turns scaling off")
        for index, beta in enumerate(self.betas):
            if not 0 <= beta < 1:
                raise InputError(f"model.optim.betas[{index}]={beta}: must be in [0, 1).")
        for name in ("weight_decay", "eps", "warmup_epochs"):
            in_range(f"model.optim.{name}", getattr(self, name), 0)
        for name in ("warmup_lr", "min_lr"):
            in_range(f"model.optim.{name}", getattr(self, name), 0, MAX_LR)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise InputError(
                f"model.optim.layer_decay={self.layer_decay}: must be in (0, 1]. For a ViT-S, 0.65 "
                "to 0.8 are usual."
            )
        one_of("model.optim.schedule", self.schedule, ("cosine", "poly", "steps"))
        in_range("model.optim.power", self.power, 0, hint="1 is linear")
        for milestone in self.milestones:
            in_range("model.optim.milestones", milestone, 0, 1, "They are fractions of the run")
        if self.warmup_steps is not None:
            in_range("model.optim.warmup_steps", self.warmup_steps, 0)
            if self.interval == "epoch":
                raise InputError(
                    f"model.optim.warmup_steps={self.warmup_steps}: steps cannot be counted with "
                    "model.optim.interval=epoch. Set interval=step, or use warmup_epochs."
                )
        name = self.name.removeprefix("lookahead_")
        one_of("model.optim.name", name, list_optimizers())
        info = get_optimizer_info(name)
        for option, supported in (("betas", info.has_betas), ("eps", info.has_eps)):
            value = getattr(self, option)
            if not supported and value != ADAM_DEFAULTS[option]:
                raise InputError(
                    f"model.optim.{option}={value}: {self.name} has no such setting. Remove the "
                    "option."
                )

    def effective_lr(self, global_batch: int) -> float:
        """Return the peak learning rate for a global batch size.

        Args:
            global_batch: Images per optimizer step, over all devices and accumulated batches.
        """
        return self.lr if self.lr_batch is None else self.lr * global_batch / self.lr_batch


def create_optimizer(
    model: nn.Module, config: OptimConfig, lr: float, fused: bool = True
) -> Optimizer:
    """Create a timm optimizer with and without weight decay, by parameter.

    Args:
        model: Its `no_weight_decay()` names parameters without weight decay; one-dimensional
            parameters have none either. Its `group_matcher()` groups layers for `layer_decay`.
        config: Optimizer settings.
        lr: Peak learning rate.
        fused: Allow the fused kernel of AdamW.

    Raises:
        InputError: The optimizer rejects the settings or is not installed.
    """
    settings: dict[str, Any] = {
        name: getattr(config, name)
        for name, default in ADAM_DEFAULTS.items()
        if "adam" in config.name or getattr(config, name) != default
    }
    if config.name == "adamw" and fused:
        settings["fused"] = all(
            weight.device.type in FUSED_DEVICES for weight in model.parameters()
        )
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=config.name,
            lr=lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            **settings,
        )
        if getattr(optimizer, "is_second_order", False):
            raise ValueError("second-order optimizers are not supported")
        return optimizer
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise InputError(
            f"model.optim.name={config.name}: cannot be created with learning rate {lr:g}, betas "
            f"{config.betas} and eps {config.eps} ({error}). The paper uses adamw."
        ) from error


def keep_config_settings(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return the optimizer state of a checkpoint with the settings of the config.

    Raises:
        InputError: The state belongs to another optimizer or other weights.
    """
    groups, own = state.get("param_groups", []), optimizer.param_groups
    stepped, examples = _after_one_step(optimizer)
    matching = len(groups) == len(own) and all(
        mine.keys() <= saved.keys() <= then.keys() and len(saved["params"]) == len(mine["params"])
        for saved, mine, then in zip(groups, own, stepped, strict=True)
    )
    if not matching:
        raise InputError(
            f"model.optim.name: the checkpoint does not hold the state of "
            f"{type(optimizer).__name__} for these weights. Use the config of its run, or start "
            "from its weights with --model.init_from."
        )
    for saved, mine, then, of_weights in zip(groups, own, stepped, examples, strict=True):
        counters = saved.keys() - {"params", *GROUP_SETTINGS}
        corrupt = [name for name in sorted(counters) if not _is_like(saved[name], then[name])]
        for index, weight, example in zip(saved["params"], mine["params"], of_weights, strict=True):
            found = state["state"].get(index, {})  # empty if the weight never had a gradient
            # what later steps add, such as Lookahead's slow weights, has the shape of the weight
            added = dict.fromkeys(found, weight) if isinstance(found, dict) else {}
            if found != {} and not _is_like(found, added | example):
                corrupt.append(f"weight {index}")
        if corrupt:
            raise InputError(
                f"model.optim.name: the checkpoint holds a corrupt state of "
                f"{type(optimizer).__name__} ({', '.join(corrupt[:3])}). Start from its weights "
                "with --model.init_from."
            )
    kept = [
        saved | {name: mine[name] for name in GROUP_SETTINGS if name in mine}
        for saved, mine in zip(groups, own, strict=True)
    ]
    return state | {"param_groups": kept}


def _after_one_step(optimizer: Optimizer) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Return the parameter groups and the state of each weight that a first step would leave.

    The step is made on one weight per group and shape, on the CPU, and the optimizer is not
    changed. Optimizers do not check what they load: fused kernels read and write past its end.
    """
    groups, state = optimizer.param_groups, optimizer.state
    samples = [{weight.shape: torch.ones(weight.shape) for weight in g["params"]} for g in groups]
    for sample in chain.from_iterable(by_shape.values() for by_shape in samples):
        sample.grad = torch.ones_like(sample)
    optimizer.state = defaultdict(dict)
    optimizer.param_groups = [
        group | {"params": list(by_shape.values())}
        for group, by_shape in zip(groups, samples, strict=True)
    ]
    try:
        optimizer.step()
        states = [
            [optimizer.state[by_shape[weight.shape]] for weight in group["params"]]
            for group, by_shape in zip(groups, samples, strict=True)
        ]
        return optimizer.param_groups, states
    finally:
        optimizer.param_groups, optimizer.state = groups, state


def _is_like(found: Any, example: Any) -> bool:
    """Return True if a state has the entries of an example, with their shapes and types."""
    if isinstance(example, dict):
        return (
            isinstance(found, dict)
            and found.keys() == example.keys()
            and all(_is_like(found[name], value) for name, value in example.items())
        )
    if isinstance(example, list):
        return (
            isinstance(found, list)
            and len(found) == len(example)
            and all(map(_is_like, found, example))
        )
    if isinstance(example, Tensor):
        return (
            isinstance(found, Tensor)
            and found.shape == example.shape
            and found.is_floating_point() == example.is_floating_point()
        )
    if isinstance(example, int | float):
        return isinstance(found, int | float)
    return type(found) is type(example)


def create_schedule(
    optimizer: Optimizer, config: OptimConfig, total_steps: int, steps_per_epoch: int
) -> Scheduler:
    """Create timm's schedule of linear warm-up and decay.

    Args:
        optimizer: Holds the peak learning rate.
        config: Schedule settings.
        total_steps: Optimizer steps of the complete run.
        steps_per_epoch: Optimizer steps per epoch.
    """
    unit = steps_per_epoch if config.interval == "epoch" else 1
    total = math.ceil(total_steps / unit)
    warmup = config.warmup_steps
    if warmup is None:
        warmup = round(config.warmup_epochs * steps_per_epoch / unit)
    length = max(1, total - warmup) if config.warmup_prefix else total
    shared: dict[str, Any] = {
        "warmup_t": warmup,
        "warmup_lr_init": config.warmup_lr,
        "warmup_prefix": config.warmup_prefix,
        "t_in_epochs": config.interval == "epoch",
    }
    if config.schedule == "steps":
        steps = [round(length * milestone) for milestone in config.milestones]
        return MultiStepLRScheduler(optimizer, steps, decay_rate=0.1, **shared)
    if config.schedule == "poly":
        return PolyLRScheduler(optimizer, length, config.power, config.min_lr, **shared)
    return CosineLRScheduler(optimizer, length, config.min_lr, **shared)
