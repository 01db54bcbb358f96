"""Comparison of tested runs, with published numbers where the protocol and the data match."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from smmix_pl.errors import InputError
from smmix_pl.plots import accuracy_curves, reliability_curves, risk_coverage_curves
from smmix_pl.plots.style import add_note, png_of, svg_of
from smmix_pl.reporting.metric_names import (
    footnotes,
    metric_name,
    metric_spec,
    metric_value,
    shown_metrics,
)
from smmix_pl.reporting.published import Published, matching
from smmix_pl.runs.results import UNKNOWN, Curve, read_results

Results = dict[str, Any]
Columns = dict[str, dict[str, float]]
"""Values by metric, by the name of the run."""

PUBLISHED_OCCLUSION = {"patch_size": 16, "fill": "zero", "pattern": "batch"}


def write_comparison(runs: Mapping[str, Results], output: Path) -> str:
    """Write the table as Markdown and CSV, and the overlaid curves, into a folder.

    Args:
        runs: Results by the name of the run.
        output: Folder to write to.

    Returns:
        The table as Markdown, with notes on its protocol.
    """
    published = common_published(list(runs.values()))
    columns = as_columns(runs, published)
    output.mkdir(parents=True, exist_ok=True)
    lines = table(runs, columns)
    text = markdown(lines) + "".join(f"\n- {note}\n" for note in notes(runs, published))
    (output / "table.md").write_text(text)
    write_csv(output / "table.csv", columns)
    save_figures(figures({name: [run] for name, run in runs.items()}, published), output)
    return text


def read_runs(words: Sequence[str]) -> dict[str, Results]:
    """Return results by name, for words as of `named_folders`.

    Raises:
        InputError: A run has no results, or two runs have the same name.
    """
    return {name: read_results(folder) for name, folder in named_folders(words).items()}


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """Return folders by name, for words such as `FOLDER` or `NAME=FOLDER`.

    Raises:
        InputError: Two runs have the same name.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, _, path = ("", "", word) if Path(word).exists() else word.rpartition("=")
        label = name or "/".join(Path(path).resolve().parts[-2:])
        if label in folders:
            raise InputError(f"{word}: two runs are named {label}. Name one with NAME={path}.")
        folders[label] = Path(path)
    return folders


def common_published(runs: Sequence[Results]) -> list[Published]:
    """Return the published rows that match data, backbone, and image size of every run."""
    first, *others = [matching(run["run"]) for run in runs]
    return [row for row in first if all(row in other for other in others)]


def as_columns(runs: Mapping[str, Results], published: Sequence[Published]) -> Columns:
    """Return one column per run, and one per published row that shares a metric with them."""
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
    """Return True if every run measured a metric by the published protocol, if there is one."""
    if not metric.startswith("occlusion_batch"):
        return True
    protocols = [run["metrics"].get(metric, {}).get("protocol", {}) for run in runs.values()]
    return all(PUBLISHED_OCCLUSION.items() <= protocol.items() for protocol in protocols)


def table(runs: Mapping[str, Results], columns: Columns) -> list[list[str]]:
    """Return the cells of a table with one row per metric, the best run in bold (`**`)."""
    unequal = different_protocols(runs)
    lines = [["", *columns]]
    for metric in shown_metrics(_metrics(columns)):
        found = {name: column[metric] for name, column in columns.items() if metric in column}
        measured = {name: value for name, value in found.items() if name in runs}
        best = set() if metric in unequal else best_names(metric, measured)
        cells = {name: metric_value(metric, value) for name, value in found.items()}
        cells |= {name: f"**{cells[name]}**" for name in best}
        lines.append([metric_name(metric), *(cells.get(name, "") for name in columns)])
    return lines


def best_names(metric: str, values: Mapping[str, float]) -> set[str]:
    """Return the names with the best value, or none if no direction is better or all are equal."""
    spec = metric_spec(metric)
    if spec is None or not spec.better or len(set(values.values())) < 2:
        return set()
    best = max(values.values()) if spec.better == "higher" else min(values.values())
    return {name for name, value in values.items() if value == best}


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, given its cells with the header first."""
    header, *rows = lines
    parts = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in parts)


def write_csv(file: Path, columns: Columns) -> None:
    """Write the same table with metric keys and full precision."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["metric", *columns])
        for metric in _metrics(columns):
            writer.writerow([metric, *(column.get(metric, "") for column in columns.values())])


def notes(runs: Mapping[str, Results], published: Sequence[Published]) -> list[str]:
    """Return what was measured, and which numbers cannot be compared."""
    lines = []
    for name, run in runs.items():
        about = run["run"]
        size = " x ".join(map(str, about["image_size"]))
        commit = about["git_commit"] or "unknown"
        changed = "+" if commit.endswith("+") else ""
        lines.append(
            f"{name}: {about['model']} ({method(about)}) on {about['data']} at {size}, "
            f"seed {about['seed']}, {test_images(run)} test images, "
            f"commit {commit.rstrip('+')[:10]}{changed}"
        )
    if len({(run["run"]["data"], tuple(run["run"]["image_size"])) for run in runs.values()}) > 1:
        lines.append("The runs were tested on different data or image sizes.")
    for metric in different_protocols(runs):
        lines.append(f"{metric_name(metric)}: not comparable, because the protocols differ.")
    lines.append("Bold: best of the runs.")
    if not published:
        lines.append("No published row has this data, backbone, and image size.")
    return lines + footnotes(metric for run in runs.values() for metric in run["metrics"])


def method(about: Mapping[str, Any]) -> str:
    """Return the mixer of a run, or its task if the mixer of its weights is unknown.

    Args:
        about: The `run` section of results.json.
    """
    mixer, task = about["mixer"], about.get("task", UNKNOWN)
    return str(task if mixer == UNKNOWN else mixer)


def different_protocols(runs: Mapping[str, Results]) -> list[str]:
    """Return the metrics that the runs measured by different protocols or on different images."""
    every = dict.fromkeys(metric for run in runs.values() for metric in run["metrics"])
    return [metric for metric in every if len(_protocols(runs, metric)) > 1]


def figures(
    methods: Mapping[str, Sequence[Results]], published: Sequence[Published] = ()
) -> dict[str, Figure]:
    """Return overlaid occlusion and risk-coverage curves, and reliability of single runs, by name.

    Args:
        methods: Results of each seed by name.
        published: Published rows whose occlusion curve is drawn.
    """
    runs = {f"{name} {i}": run for name, seeds in methods.items() for i, run in enumerate(seeds)}
    drawn = {}
    if len(runs) == len(methods):
        for name in _shared(runs, "reliability"):
            diagrams = {run: results["reliability"][name] for run, [results] in methods.items()}
            scaled = " after temperature scaling" if "scaled" in name else ""
            bins = len(next(iter(diagrams.values()))["total"])
            drawn[name] = reliability_curves(diagrams, f"Reliability{scaled} ({bins} bins)")
    for name in _shared(runs, "curves"):
        curves = {method: [_curve(run, name) for run in seeds] for method, seeds in methods.items()}
        same_points = all(curve.x == seeds[0].x for seeds in curves.values() for curve in seeds)
        if name.startswith("occlusion") and same_points:
            title = f"Robustness to occlusion\n{metric_name(name)}"
            references = _published_curves(runs, name, published)
            drawn[name] = accuracy_curves(curves, title, "Patches dropped (%)", references)
        elif name == "risk" and same_points:
            drawn[name] = risk_coverage_curves(curves, "Selective prediction")
    for figure in drawn.values():
        add_note(figure, described(methods))
    return drawn


def described(methods: Mapping[str, Sequence[Results]]) -> str:
    """Return models, datasets, and numbers of test images and seeds, for a figure of them."""
    runs = [run for seeds in methods.values() for run in seeds]
    models = dict.fromkeys(f"{run['run']['model']} on {run['run']['data']}" for run in runs)
    images = {test_images(run) for run in runs}
    count = f", n = {images.pop()}" if len(images) == 1 else ""
    several = len(runs) > len(methods)
    return "; ".join(models) + count + ("; mean ± standard deviation over seeds" if several else "")


def test_images(run: Results) -> int:
    """Return the largest number of images that a metric of a run was measured on."""
    return max((found["images"] for found in run["metrics"].values()), default=0)


def save_figures(drawn: Mapping[str, Figure], output: Path) -> None:
    """Write figures as PNG and SVG."""
    for name, figure in drawn.items():
        (output / f"{name}.png").write_bytes(png_of(figure))
        (output / f"{name}.svg").write_bytes(svg_of(figure))


def _protocols(runs: Mapping[str, Results], metric: str) -> set[str]:
    found = [run["metrics"][metric] for run in runs.values() if metric in run["metrics"]]
    unused = () if "_auc_" in metric else ("auc",)  # how the area under a curve was computed
    return {
        json.dumps([how["images"], {k: v for k, v in how["protocol"].items() if k not in unused}])
        for how in found
    }


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
