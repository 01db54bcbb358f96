"""Any number of evaluated runs side by side, with published numbers where protocol and data match.

python -m smmix_pl.reporting.comparison [NAME=]RUN [[NAME=]RUN ...] [--output comparison]
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from smmix_pl.cli.input_errors import WordsParser, report_input_errors
from smmix_pl.errors import InputError
from smmix_pl.plots import accuracy_curves, reliability_curves
from smmix_pl.reporting.metric_specs import metric_name, metric_value
from smmix_pl.reporting.published import Published, matching
from smmix_pl.runs.results import Curve, read_results

Results = dict[str, Any]
Columns = dict[str, dict[str, float]]
"""Values by metric, by the name of the run."""

PUBLISHED_PATCH = {"patch_size": 16, "fill": "zero", "pattern": "batch"}


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, and write it and the curves."""
    parser = WordsParser(prog="python -m smmix_pl.reporting.comparison", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="folder of a tested run")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="folder to write")
    with report_input_errors():
        options = parser.parse_args(words)
        compare(read_runs(options.runs), options.output)


def compare(runs: Mapping[str, Results], output: Path) -> None:
    """Print the table of runs by name, and write it and the curves into a folder."""
    published = common_published(list(runs.values()))
    columns = as_columns(runs, published)
    output.mkdir(parents=True, exist_ok=True)
    table = markdown(columns) + "".join(f"\n{line}" for line in notes(runs, published))
    (output / "table.md").write_text(table)
    write_csv(output / "table.csv", columns)
    for name, figure in figures(runs, published).items():
        figure.savefig(output / f"{name}.png", dpi=100)
        figure.savefig(output / f"{name}.svg")
    print(table)
    print(f"table.md, table.csv and curves are in {output}")


def read_runs(words: Sequence[str]) -> dict[str, Results]:
    """Results by name; a run without a name goes by its folder.

    Raises:
        InputError: A run has no results, or two have one name.
    """
    return {name: read_results(folder) for name, folder in named(words).items()}


def named(words: Sequence[str]) -> dict[str, Path]:
    """Folders by name, of words such as ``FOLDER`` or ``NAME=FOLDER``.

    Raises:
        InputError: Two have one name.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, _, path = ("", "", word) if Path(word).exists() else word.rpartition("=")
        label = name or "/".join(Path(path).resolve().parts[-2:])
        if label in folders:
            raise InputError(f"two runs are named {label}; name them with NAME={path}")
        folders[label] = Path(path)
    return folders


def common_published(runs: Sequence[Results]) -> list[Published]:
    """Published rows that match every run's data, backbone and image size."""
    first, *others = [matching(run["run"]) for run in runs]
    return [row for row in first if all(row in other for other in others)]


def as_columns(runs: Mapping[str, Results], published: Sequence[Published]) -> Columns:
    """One column a run, then one a published row that shares a metric with them."""
    columns = {
        name: {metric: found["value"] for metric, found in run["metrics"].items()}
        for name, run in runs.items()
    }
    known = {metric for column in columns.values() for metric in column if comparable(runs, metric)}
    for row in published:
        values = {metric: value for metric, value in row.values().items() if metric in known}
        if values:
            columns[f"{row.label} [{row.source}]"] = values
    return columns


def comparable(runs: Mapping[str, Results], metric: str) -> bool:
    """Whether every run measured a metric by the published protocol, as far as there is one."""
    if not metric.startswith("occlusion_batch"):
        return True
    protocols = [run["metrics"].get(metric, {}).get("protocol", {}) for run in runs.values()]
    return all(PUBLISHED_PATCH.items() <= protocol.items() for protocol in protocols)


def markdown(columns: Columns) -> str:
    """A table with one row a metric; what a column lacks stays empty."""
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    for metric in _metrics(columns):
        values = [_cell(metric, column.get(metric)) for column in columns.values()]
        lines.append([metric_name(metric), *values])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_csv(file: Path, columns: Columns) -> None:
    """The same table with the metrics' own names and full precision."""
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["metric", *columns])
        for metric in _metrics(columns):
            writer.writerow([metric, *(column.get(metric, "") for column in columns.values())])


def notes(runs: Mapping[str, Results], published: Sequence[Published]) -> list[str]:
    """What the numbers were measured on, and on what they may not be compared."""
    lines = []
    for name, run in runs.items():
        of = run["run"]
        size = " x ".join(map(str, of["image_size"]))
        commit = of["git_commit"] or "unknown"
        changed = "+" if commit.endswith("+") else ""
        lines.append(
            f"- {name}: {of['model']} ({of['mixer']}) on {of['data']} at {size}, "
            f"seed {of['seed']}, commit {commit.rstrip('+')[:10]}{changed}\n"
        )
    if len({(run["run"]["data"], tuple(run["run"]["image_size"])) for run in runs.values()}) > 1:
        lines.append("- These runs were tested on different data or image sizes.\n")
    for metric in unlike(runs):
        lines.append(
            f"- {metric_name(metric)}: the runs' protocols differ, so do not compare it.\n"
        )
    if not published:
        lines.append("- No published row has this data, backbone and image size.\n")
    return lines


def unlike(runs: Mapping[str, Results]) -> list[str]:
    """Metrics that the runs measured by different protocols, or on different numbers of images."""
    every = dict.fromkeys(metric for run in runs.values() for metric in run["metrics"])
    return [metric for metric in every if len(_protocols(runs, metric)) > 1]


def _protocols(runs: Mapping[str, Results], metric: str) -> set[str]:
    found = [run["metrics"][metric] for run in runs.values() if metric in run["metrics"]]
    unused = () if "_auc_" in metric else ("auc",)  # how a curve's points make its area
    return {
        json.dumps([how["images"], {k: v for k, v in how["protocol"].items() if k not in unused}])
        for how in found
    }


def figures(runs: Mapping[str, Results], published: Sequence[Published]) -> dict[str, Figure]:
    """Overlaid reliability and occlusion curves, of what the runs hold."""
    drawn = {}
    for name in _shared(runs, "reliability"):
        diagrams = {run: results["reliability"][name] for run, results in runs.items()}
        scaled = " after temperature scaling" if "scaled" in name else ""
        bins = len(next(iter(diagrams.values()))["total"])
        drawn[name] = reliability_curves(diagrams, f"Calibration{scaled}, {bins} bins")
    for name in _shared(runs, "curves"):
        if name.startswith("occlusion"):
            curves = {run: _curve(results, name) for run, results in runs.items()}
            beside = _published_curves(runs, name, published)
            kind = metric_name(name)
            title = f"Robustness to occlusion, {kind}"
            drawn[name] = accuracy_curves(curves, title, "patches dropped (%)", beside)
    return drawn


def _published_curves(
    runs: Mapping[str, Results], name: str, published: Sequence[Published]
) -> dict[str, Curve]:
    if name != "occlusion_batch" or not comparable(runs, "occlusion_batch_50"):
        return {}
    return {row.label: row.curve() for row in published if row.occlusion}


def _shared(runs: Mapping[str, Results], part: str) -> list[str]:
    first, *others = [run.get(part, {}) for run in runs.values()]
    return [name for name in first if all(name in other for other in others)]


def _curve(results: Results, name: str) -> Curve:
    found = results["curves"][name]
    return Curve(found["x"], found["y"])


def _metrics(columns: Columns) -> list[str]:
    return list(dict.fromkeys(metric for column in columns.values() for metric in column))


def _cell(metric: str, value: float | None) -> str:
    return "" if value is None else metric_value(metric, value)


if __name__ == "__main__":
    main()
