"""Tables and the figure of benchmarks/evidence.py."""

import csv
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smmix_pl.plots.style import COLORS, add_note, paper_style, style_axes
from smmix_pl.reporting.paired_seeds import paired_difference

MEASURES = {
    "top1": "top-1",
    "nll": "NLL",
    "ece": "ECE",
    "ece_scaled": "ECE, scaled",
    "occlusion_25": "25% occlusion",
    "occlusion_50": "50% occlusion",
    "occlusion_75": "75% occlusion",
    "occlusion_auc_75": "mean over 0 to 75% occlusion",
    "images_per_second": "images/s",
}
"""Columns of the table by metric. Fractions are shown in percent."""
PLAIN = ("nll", "images_per_second")
"""Measures that are no fractions."""
FAMILIES = {
    "none": "black",
    "peers": COLORS[0],
    "SMMix": COLORS[1],
    "ablations of SMMix": COLORS[4],
}
"""Color of each family of methods."""
COMPARED = ("top1", "nll", "ece_scaled", "occlusion_50")
"""Measures whose differences are shown."""
Measured = dict[str, dict[int, dict[str, float]]]
"""Measures by method and seed."""


def read_runs(file: Path) -> Measured:
    """Return the measures that a file lists, or none without the file."""
    found: Measured = {}
    if file.exists():
        with file.open() as stream:
            for row in csv.DictReader(stream):
                values = {name: float(row[name]) for name in MEASURES if row.get(name)}
                found.setdefault(row["method"], {})[int(row["seed"])] = values
    return found


def add_runs(file: Path, measured: Measured) -> None:
    """Write the measures of each run, one line per method and seed, beside those of other runs."""
    listed = read_runs(file)
    for method, runs in measured.items():
        listed[method] = listed.get(method, {}) | runs
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["method", "seed", *MEASURES], lineterminator="\n")
        writer.writeheader()
        for method, runs in listed.items():
            for seed, values in runs.items():
                rounded = {name: f"{value:.4f}" for name, value in values.items()}
                writer.writerow({"method": method, "seed": seed, **rounded})


def table(measured: Measured) -> str:
    """Return a Markdown table of means and standard deviations over seeds."""
    every_run = [run for runs in measured.values() for run in runs.values()]
    columns = [name for name in MEASURES if all(name in run for run in every_run)]
    lines = [["method", *(MEASURES[name] for name in columns)], ["---"] * (1 + len(columns))]
    for method, runs in measured.items():
        spreads = [mean_and_spread([run[name] for run in runs.values()]) for name in columns]
        lines.append([method, *spreads])
    return markdown(lines)


def differences(measured: Measured, baseline: str) -> str:
    """Return a Markdown table of mean differences with 95% intervals, paired by seed.

    An asterisk marks intervals that exclude zero, without correction for their number.
    """
    every_run = [run for runs in measured.values() for run in runs.values()]
    columns = [name for name in COMPARED if all(name in run for run in every_run)]
    header = [f"minus {baseline}", *(MEASURES[name] for name in columns)]
    lines = [header, ["---"] * len(header)]
    for method in [one for one in measured if one != baseline]:
        cells = [method]
        for name in columns:
            values, others = (
                {seed: run[name] for seed, run in measured[one].items()}
                for one in (method, baseline)
            )
            found = paired_difference(values, others)
            mark = "\\*" if found.is_distinguishable else ""
            cells.append(f"{found.mean:+.2f} ± {found.margin:.2f}{mark}")
        lines.append(cells)
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """Return the cells of a table as Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_spread(values: list[float]) -> str:
    """Return the mean, and the sample standard deviation of several values."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


Rows = dict[str, dict[str, tuple[float, float]]]
"""Mean and standard deviation of each column, by method."""


def read_table(text: str) -> Rows:
    """Return the content of a table as of `table`."""
    lines = [line.strip(" |").split("|") for line in text.splitlines() if line.strip(" |")]
    (_, *columns), _, *rows = [[cell.strip() for cell in line] for line in lines]
    found: Rows = {}
    for method, *cells in rows:
        parts = [f"{cell} ± 0".split(" ± ") for cell in cells]
        values = [(float(mean), float(deviation)) for mean, deviation, *_ in parts]
        found[method] = dict(zip(columns, values, strict=True))
    return found


@paper_style
def figure(rows: Rows, note: str) -> Figure:
    """Draw the accuracy on plain and on half-occluded images, best method first.

    Args:
        rows: Table of the methods. The vertical line is the mean without mixing.
        note: Line below the figure.
    """
    methods = sorted(rows, key=lambda method: rows[method]["top-1"], reverse=True)
    drawn = Figure(figsize=(7.0, 0.9 + 0.2 * len(methods)), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    labels = {"top-1": "Top-1 (%)", "50% occlusion": "Top-1 at 50% occlusion (%)"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        style_axes(axes)
        for place, method in enumerate(methods):
            mean, deviation = rows[method][column]
            color = FAMILIES[family(method)]
            axes.errorbar(mean, place, xerr=deviation, fmt="o", color=color, capsize=2)
        if "none" in rows:
            axes.axvline(rows["none"][column][0], color=FAMILIES["none"], linestyle=":", lw=1)
        axes.set_yticks(range(len(methods)), methods)
        axes.set_xlabel(label)
    panels[0].invert_yaxis()
    shown = dict.fromkeys(family(method) for method in methods)
    marks = [Line2D([], [], color=FAMILIES[one], marker="o", ls="", label=one) for one in shown]
    drawn.legend(handles=marks, loc="outside upper center", ncols=len(marks))
    add_note(drawn, note)
    return drawn


def family(method: str) -> str:
    """Return the family of a method: no mixing, SMMix, an ablation of SMMix, or a peer."""
    if method in ("none", "SMMix"):
        return method
    return "ablations of SMMix" if method.startswith("SMMix") else "peers"
