"""Which training steps are logged, so that callbacks only measure what is kept."""

from lightning.pytorch import Trainer


def logs_this_step(trainer: Trainer) -> bool:
    """Return True in `on_train_batch_end` if Lightning logs the step that has just ended."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and _steps(trainer) and trainer.global_step % every == 0


def logs_next_step(trainer: Trainer) -> bool:
    """Return True in `on_train_batch_start` if this batch ends a step that Lightning will log."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and _steps(trainer) and (trainer.global_step + 1) % every == 0


def _steps(trainer: Trainer) -> bool:
    """Return True if the optimizer steps after the current batch; gradients may accumulate."""
    done = trainer.fit_loop.batch_idx + 1
    last = done == trainer.num_training_batches
    return last or done % trainer.accumulate_grad_batches == 0
