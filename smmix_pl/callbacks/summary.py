"""The table at the end of a test."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from smmix_pl.callbacks.figures import run_folder

NAMES = {"test/top1": "top-1", "test/top5": "top-5", "test/loss": "loss", "test/ece": "ECE"}


class Summary(Callback):
    """Prints the test metrics, and where checkpoint, metrics and pictures of the run are."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print, after Lightning's own table; rank 0 only."""
        if stage != "test" or not trainer.is_global_zero:
            return
        table = Table(title=f"Test of {pl_module.hparams['backbone']}", show_header=False)
        for key, value in trainer.callback_metrics.items():
            if key.startswith("test/"):
                table.add_row(metric_name(key), metric_value(key, float(value)))
        for name, place in places(trainer).items():
            table.add_row(name, place)
        Console(soft_wrap=True).print(table)


def metric_name(key: str) -> str:
    """A log key in words."""
    if key.startswith("test/occlusion_"):
        return f"top-1, {key.removeprefix('test/occlusion_')}% occlusion"
    return NAMES.get(key, key.removeprefix("test/"))


def metric_value(key: str, value: float) -> str:
    """A loss as it is, everything else in percent."""
    return f"{value:.4f}" if "loss" in key else f"{100 * value:.2f}%"


def places(trainer: Trainer) -> dict[str, str]:
    """Where the files of a run are, by what they are."""
    checkpoint = trainer.ckpt_path or _best(trainer)
    found = {"checkpoint": str(checkpoint)} if checkpoint else {}
    folder = run_folder(trainer)
    if folder is not None:
        found |= {"metrics": f"{folder}/metrics.csv", "pictures": f"{folder}/pictures"}
    return found


def _best(trainer: Trainer) -> str:
    callback = trainer.checkpoint_callback
    return callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
