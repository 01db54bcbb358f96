"""Where a callback's figure goes: the run folder, and every logger that takes images."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure


def run_folder(trainer: Trainer) -> Path | None:
    """The folder of this run, or None where a run leaves no trace (no logger); for rank 0.

    Not ``trainer.log_dir``, which talks to the other ranks and waits for their answer.
    """
    if not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    first = trainer.loggers[0]
    return Path(getattr(first, "log_dir", None) or first.save_dir or ".")


def current_step(trainer: Trainer) -> int:
    """The step that Lightning logs numbers under that are found now."""
    fitting = trainer.state.fn == TrainerFn.FITTING  # the validation that follows a step is its own
    return max(0, trainer.global_step - fitting)


def save_figure(trainer: Trainer, name: str, figure: Figure, photographs: bool = False) -> None:
    """Write a figure into the run's ``pictures`` folder and hand it to W&B; rank 0 only.

    As PNG for the screen, and as SVG for a paper.

    Args:
        trainer: Whose run it belongs to.
        name: Log key such as ``test/reliability``; the file's name has no slash.
        figure: What to save.
        photographs: It shows images rather than lines: W&B, which keeps one of each time, gets a
            JPEG, a tenth of the bytes.
    """
    folder = run_folder(trainer) if trainer.is_global_zero else None
    if folder is None:
        return
    path = folder / "pictures" / f"{name.replace('/', '_')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    figure.savefig(path.with_suffix(".svg"))
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if photographs and loggers:
        path = path.with_suffix(".jpg")
        figure.savefig(path, dpi=100, pil_kwargs={"quality": 85})
    for logger in loggers:
        logger.log_image(name, [str(path)], step=current_step(trainer))
