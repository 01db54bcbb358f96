"""Table printed at the end of a test."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich import box
from rich.console import Console
from rich.table import Table

from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.callbacks.output.results_file import evaluation_reports
from smmix_pl.reporting.metric_specs import metric_name, metric_value
from smmix_pl.runs.results import Curve

FILES = {"metrics": "metrics.csv", "results": "results.json", "pictures": "pictures"}


class SummaryTable(Callback):
    """Prints the test metrics and the paths of the run's checkpoint, metrics, and figures."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table on rank 0, after Lightning's own table."""
        if stage != "test" or not trainer.is_global_zero:
            return
        console = Console(soft_wrap=True)
        console.print(summary_table(trainer, str(pl_module.hparams["backbone"])))
        for table in curve_tables(trainer):
            console.print(table)
        for name, path in paths(trainer).items():
            console.print(f"{name}: {path}", highlight=False)


def summary_table(trainer: Trainer, name: str) -> Table:
    """Return a table of the metrics, including the points of short curves."""
    table = Table(title=f"Test of {name}", show_header=False)
    in_tables = {key for curves in long_curves(trainer).values() for key in curves}
    for key, value in trainer.callback_metrics.items():
        metric = key.removeprefix("test/")
        curve, _, point = metric.rpartition("_")
        if metric != key and not (curve in in_tables and point[0].isdigit()):
            table.add_row(metric_name(metric), metric_value(metric, float(value)))
    return table


def long_curves(trainer: Trainer) -> dict[tuple[float, ...], dict[str, Curve]]:
    """Return the curves of more than five points, grouped by their x values."""
    groups: dict[tuple[float, ...], dict[str, Curve]] = {}
    for report in evaluation_reports(trainer):
        for name, curve in report.curves.items():
            if len(curve.x) > 5:
                groups.setdefault(tuple(curve.x), {})[name] = curve
    return groups


def curve_tables(trainer: Trainer) -> list[Table]:
    """Return tables with one row per curve and one column per point."""
    tables = []
    for points, curves in long_curves(trainer).items():
        kind = next(iter(curves)).split("_")[0]
        table = Table(title=f"Top-1 accuracy (%), {kind}", box=box.SIMPLE_HEAD, padding=0)
        table.add_column("", no_wrap=True)
        for point in points:
            table.add_column(f"{point:g}", justify="right")
        for name, curve in curves.items():
            table.add_row(metric_name(name), *(f"{100 * y:.1f}" for y in curve.y))
        tables.append(table)
    return tables


def paths(trainer: Trainer) -> dict[str, str]:
    """Return the paths of the run's files by their content."""
    checkpoint = trainer.ckpt_path or _best_checkpoint(trainer)
    found = {"checkpoint": str(checkpoint)} if checkpoint else {}
    folder = run_folder(trainer)
    if folder is None:
        return found
    return found | {
        name: str(folder / file) for name, file in FILES.items() if (folder / file).exists()
    }


def _best_checkpoint(trainer: Trainer) -> str:
    callback = trainer.checkpoint_callback
    return callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
