"""Table printed at the end of a test."""

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import box
from rich.console import Console
from rich.table import Table

from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.callbacks.output.results_file import evaluation_reports
from smmix_pl.callbacks.output.run_summary import best_checkpoint
from smmix_pl.reporting.metric_names import metric_name, metric_spec, metric_value, shown_metrics
from smmix_pl.reporting.metric_specs import METRICS
from smmix_pl.runs.results import Curve

FILES = {"metrics": "metrics.csv", "results": "results.json", "pictures": "pictures"}


class SummaryTable(Callback):
    """Prints the test metrics and the paths of the run's checkpoint, metrics, and figures."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table on rank 0."""
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
    tested = {
        key.removeprefix("test/"): float(value)
        for key, value in trainer.callback_metrics.items()
        if key.startswith("test/")
    }
    for metric in shown_metrics(sorted(tested, key=_place)):
        curve, _, point = metric.rpartition("_")
        if not (curve in in_tables and point[0].isdigit()):
            table.add_row(metric_name(metric), metric_value(metric, tested[metric]))
    return table


def long_curves(trainer: Trainer) -> dict[tuple[float, ...], dict[str, Curve]]:
    """Return the curves of more than five points, grouped by their x values."""
    groups: dict[tuple[float, ...], dict[str, Curve]] = {}
    for report in evaluation_reports(trainer):
        for name, curve in report.curves.items():
            if len(curve.x) > 5:
                groups.setdefault(tuple(curve.x), {})[name] = curve
    return groups


def _place(key: str) -> tuple[bool, int]:
    """Return where a metric is in the table: that of `METRICS`, with overlays last."""
    spec = metric_spec(key)
    return (True, len(METRICS)) if spec is None else (spec.source != "", METRICS.index(spec))


def curve_tables(trainer: Trainer) -> list[Table]:
    """Return tables of the curves. Points or curves are the rows, so that they fit 80 columns."""
    tables = []
    for points, curves in long_curves(trainer).items():
        kind = next(iter(curves)).split("_")[0]
        heads = [f"{point:g}" for point in points]
        cells = {metric_name(name): [f"{100 * y:.1f}" for y in c.y] for name, c in curves.items()}
        if len(heads) > len(cells):
            rows = zip(*cells.values(), strict=True)
            heads, cells = list(cells), dict(zip(heads, map(list, rows), strict=True))
        table = Table(title=f"Top-1 accuracy (%), {kind}", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("")
        for head in heads:
            table.add_column(head, justify="right", min_width=5)
        for name, row in cells.items():
            table.add_row(name, *row)
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
    callback = best_checkpoint(trainer)
    return callback.best_model_path if callback is not None else ""
