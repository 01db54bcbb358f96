"""Warnings of learning rate settings that are valid one by one, and do not fit the run."""

from lightning.pytorch.utilities import rank_zero_warn

from smmix_pl.optim import OptimConfig


def warn_of_schedule(
    config: OptimConfig, lr: float, total_steps: int, steps_per_epoch: int
) -> None:
    """Warn of a schedule that does not fit the length of the run.

    Args:
        config: Optimizer and schedule.
        lr: Peak learning rate.
        total_steps: Optimizer steps of the complete run.
        steps_per_epoch: Optimizer steps per epoch.
    """
    epochs = total_steps / steps_per_epoch
    if lr < config.min_lr and config.schedule != "steps":
        rank_zero_warn(
            f"model.optim.min_lr={config.min_lr:g}: above the learning rate of {lr:.4g}, so that "
            f"it rises during the run. Set model.optim.min_lr below it, or raise model.optim.lr."
        )
    if config.warmup_steps is not None:
        if config.warmup_steps >= total_steps:
            rank_zero_warn(
                f"model.optim.warmup_steps={config.warmup_steps}: the run of {total_steps} steps "
                f"ends before the learning rate reaches {lr:.4g}. Set model.optim.warmup_steps to "
                f"{total_steps // 10}, or raise trainer.max_epochs."
            )
        return
    if config.warmup_epochs and config.warmup_epochs >= epochs:
        rank_zero_warn(
            f"model.optim.warmup_epochs={config.warmup_epochs:g}: the run of {epochs:g} epochs "
            f"ends before the learning rate reaches {lr:.4g}. Set model.optim.warmup_epochs to "
            f"{epochs / 10:.2g}, or raise trainer.max_epochs."
        )
    elif config.warmup_epochs and config.interval == "epoch" and epochs < 10:
        rank_zero_warn(
            f"model.optim.interval=epoch: the first of {epochs:g} epochs runs at the learning rate "
            f"{config.warmup_lr:g}. Set model.optim.interval=step for short runs."
        )
