"""Logged training steps: nothing is measured at other steps, whose values Lightning drops."""

from lightning.pytorch import Trainer


def log_interval(trainer: Trainer) -> int:
    """Return the number of steps between two logged ones, 0 if none is logged."""
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return interval


def logs_this_step(trainer: Trainer) -> bool:
    """Return True in `on_train_batch_end` if Lightning logs the step that has just ended."""
    every = log_interval(trainer)
    return bool(every) and _steps(trainer) and trainer.global_step % every == 0


def logs_next_step(trainer: Trainer) -> bool:
    """Return True within a batch if it ends a step that Lightning will log."""
    every = log_interval(trainer)
    return bool(every) and _steps(trainer) and (trainer.global_step + 1) % every == 0


def _steps(trainer: Trainer) -> bool:
    """Return True if the optimizer steps after the current batch; gradients may accumulate."""
    done = trainer.fit_loop.batch_idx + 1
    last = done == trainer.num_training_batches
    return last or done % trainer.accumulate_grad_batches == 0
