"""Saving a callback's figure to the run folder and to loggers that accept images."""

from io import BytesIO
from pathlib import Path
from typing import cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from PIL import Image

from smmix_pl.base_module import BaseModule
from smmix_pl.data.data_label import data_label
from smmix_pl.data.trainer_datamodule import require_base_data
from smmix_pl.plots.style import add_note, png_of, svg_of
from smmix_pl.runs.results import UNKNOWN
from smmix_pl.runs.run_files import write_atomic


def run_folder(trainer: Trainer) -> Path | None:
    """Return the folder of the run on rank 0, or None if the run writes nothing (no logger).

    `trainer.log_dir` is not used, because it communicates with the other ranks.
    """
    if not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    first = trainer.loggers[0]
    return Path(getattr(first, "log_dir", None) or first.save_dir or ".")


def current_step(trainer: Trainer) -> int:
    """Return the step under which Lightning logs values computed now."""
    fitting = trainer.state.fn == TrainerFn.FITTING  # a validation belongs to the step before it
    return max(0, trainer.global_step - fitting)


def save_figure(
    trainer: Trainer,
    model: LightningModule,
    name: str,
    figure: Figure,
    images: int,
    photographs: bool = False,
) -> None:
    """Write a figure to the run's `pictures` folder as PNG and SVG, and log it to W&B.

    A line below the figure names model, mixer if known, dataset, and number of images. Only rank 0
    writes.

    Args:
        trainer: Trainer of the run.
        model: Model that the figure is about.
        name: Log key, such as `test/reliability`. In the file name, slashes become underscores.
        figure: Figure to save.
        images: Number of images that it shows or was computed from.
        photographs: Log a JPEG to W&B, which is a tenth of the size and suits photographs. W&B
            keeps one image per call.
    """
    folder = run_folder(trainer) if trainer.is_global_zero else None
    if folder is None:
        return
    model = cast(BaseModule, model)
    data = require_base_data(trainer)
    subject = f"{data_label(type(data), data.root)} {name.split('/')[0]}"
    mixer = "" if model.method == UNKNOWN else f", {model.method}"
    add_note(figure, f"{model.hparams['backbone']}{mixer}, {subject}, n = {images}")
    path = folder / "pictures" / f"{name.replace('/', '_')}.png"
    png = png_of(figure)
    write_atomic(path, png)
    write_atomic(path.with_suffix(".svg"), svg_of(figure))
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if photographs and loggers:
        path, jpeg = path.with_suffix(".jpg"), BytesIO()
        Image.open(BytesIO(png)).convert("RGB").save(jpeg, "JPEG", quality=85)
        write_atomic(path, jpeg.getbuffer())
    for logger in loggers:
        logger.log_image(name, [str(path)], step=current_step(trainer))
