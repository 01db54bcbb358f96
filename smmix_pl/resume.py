"""What Lightning's own resume leaves to be done."""

from lightning.pytorch import Trainer


def begin_next_epoch(trainer: Trainer) -> None:
    """Begin a new epoch where a run that ends by ``max_steps`` resumes from an epoch's end.

    Lightning (2.6) takes such an epoch for an unfinished one, and counts it twice without training.
    To be called as training starts; does nothing elsewhere.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop.restarted_on_epoch_end and trainer.max_steps != -1:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False
