"""One HTML page about one run or several, without scripts and without network access."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from smmix_pl.errors import InputError
from smmix_pl.plots.style import line_style, style_axes
from smmix_pl.reporting import comparison as compare
from smmix_pl.reporting.metric_specs import HEADLINE, metric_name, metric_spec, metric_value
from smmix_pl.reporting.panels import PANELS, PICTURES, panel_keys
from smmix_pl.runs.results import read_results
from smmix_pl.runs.run_files import check_run_folder, read_config

POINTS = 200
"""Maximum number of points of a line; longer ones are averaged."""
SMOOTH = 40
"""Number of points of the smoothed line over a noisy one."""
STYLE = """
:root { color-scheme: light; --line: #d8dee6; --pale: #f5f7fa; --ink: #1c2733; --soft: #5b6b7c; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 76rem;
       padding: 1.2rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .3rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .4rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; }
.tile { background: var(--pale); border-radius: .5rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.35rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
          gap: 1rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .88rem; }
img { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--pale); padding: .8rem; overflow-x: auto; font-size: .8rem; }
summary { cursor: pointer; }
"""


@dataclass(frozen=True)
class Run:
    """Content of a run folder.

    Attributes:
        folder: The folder.
        results: Content of results.json; empty if the run was not tested.
        lines: Steps and values of each logged key.
        config: The resolved config, as text.
    """

    folder: Path
    results: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    config: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """Description of the run: model, mixer, data, versions."""
        about: dict[str, Any] = self.results.get("run", {})
        return about

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics by name."""
        return {key: found["value"] for key, found in self.results.get("metrics", {}).items()}


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: It is not the folder of a run, or a link leads out of it.
    """
    log, config = folder / "metrics.csv", folder / "config.yaml"
    tested = (folder / "results.json").is_file()
    if not log.is_file() and not tested:
        raise InputError(
            f"{folder}: has neither metrics.csv nor results.json. Pass the folder of a run, which "
            "ends in version_0 or similar."
        )
    check_run_folder(folder)
    return Run(
        folder,
        read_results(folder) if tested else {},
        _checked_lines(log) if log.is_file() else {},
        config.read_text(errors="replace") if config.is_file() else "",
    )


def _checked_lines(log: Path) -> dict[str, tuple[list[float], list[float]]]:
    try:
        return read_lines(log)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise InputError(
            f"{log}: not a log of Lightning's CSVLogger ({reason}). Train again or remove it."
        ) from error


def read_lines(log: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return the steps and values of each key in a metrics.csv."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            if None in row.values():
                continue  # the truncated last line of a killed run
            for key, value in row.items():
                if value and key not in ("step", "epoch"):
                    steps, values = lines.setdefault(key, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return lines


def html(runs: Mapping[str, Run]) -> str:
    """Return the page about one run, or about several with their comparison first.

    Args:
        runs: Runs by name.
    """
    several = len(runs) > 1
    title = "Comparison: " + ", ".join(runs) if several else headline(*runs.values())
    body = [f"<h1>{escape(title)}</h1>"]
    if several:
        body.append(comparison(runs))
    else:
        body += [facts(run) + tiles(run) for run in runs.values()]
    learning, *others = (
        panel_section(panel.question, panel_keys(name), runs) for name, panel in PANELS.items()
    )
    named = {name if several else "": run for name, run in runs.items()}
    body += [learning, *(pictures(run, name) for name, run in named.items()), *others]
    body += [details(run, name) for name, run in named.items()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        + "\n".join(part for part in body if part)
        + "</body></html>\n"
    )


def headline(run: Run) -> str:
    """Return mixer, model, data, and seed in one line."""
    about = run.about or configured(run.folder)
    if not about:
        return str(run.folder)
    return f"{about['mixer']}: {about['model']} on {about['data']}, seed {about['seed']}"


def configured(folder: Path) -> dict[str, Any]:
    """Return mixer, model, data, and seed of a run that was not tested, from its config."""
    settings = read_config(folder)
    try:
        return {
            "mixer": settings["model"]["mixer"]["class_path"].rsplit(".")[-1],
            "model": settings["model"]["backbone"],
            "data": settings["data"]["class_path"].rsplit(".")[-1],
            "seed": settings["seed_everything"],
        }
    except (LookupError, TypeError, AttributeError):
        return {}


def facts(run: Run) -> str:
    """Return what was run, in a sentence or two."""
    about = run.about
    if not about:
        return f"<p class=soft>{escape(str(run.folder))}: not tested yet.</p>"
    size = " x ".join(map(str, about["image_size"]))
    known = [f"{size} pixels", f"{about.get('num_classes', 'unknown')} classes"]
    if {"parameters", "tokens"} <= about.keys():
        known.append(f"{about['parameters'] / 1e6:.2f} million parameters")
        known.append(f"{' x '.join(map(str, about['tokens']))} tokens")
    known += [f"{count} {part} images" for part, count in about.get("images", {}).items()]
    return f"<p class=soft>{escape(', '.join(known))}. {escape(str(run.folder))}</p>"


def tiles(run: Run) -> str:
    """Return the headline test metrics."""
    found = run.metrics
    cells = [
        f"<div class=tile>{escape(metric_name(key))}<b>{metric_value(key, found[key])}</b></div>"
        for key in HEADLINE
        if key in found
    ]
    return f"<h2>Test metrics</h2><div class=tiles>{''.join(cells)}</div>" if cells else ""


def comparison(runs: Mapping[str, Run]) -> str:
    """Return the table and the overlaid curves of `smmix compare`."""
    tested = {name: run.results for name, run in runs.items() if run.results}
    if len(tested) < 2:
        return "<p>Fewer than two runs were tested, so only their training is compared.</p>"
    published = compare.common_published(list(tested.values()))
    columns = compare.as_columns(tested, published)
    metrics = dict.fromkeys(key for column in columns.values() for key in column)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *columns))
    rows = [
        f"<tr><td>{escape(metric_name(key))}</td>"
        + "".join(_cell(key, column.get(key)) for column in columns.values())
        + "</tr>"
        for key in dict.fromkeys((*(key for key in HEADLINE if key in metrics), *metrics))
    ]
    drawn = "".join(
        image(figure, name) for name, figure in compare.figures(tested, published).items()
    )
    notes = "".join(
        f"<p class=soft>{escape(note)}</p>" for note in compare.notes(tested, published)
    )
    table = f"<div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"
    return f"<h2>Test metrics</h2>{table}{notes}<div class=panels>{drawn}</div>"


def panel_section(question: str, keys: Sequence[str], runs: Mapping[str, Run]) -> str:
    """Return one line plot per key that any run logged."""
    panels = [
        image(line_plot(key, runs), _meaning(key))
        for key in keys
        if any(key in run.lines for run in runs.values())
    ]
    return f"<h2>{question}</h2><div class=panels>{''.join(panels)}</div>" if panels else ""


def line_plot(key: str, runs: Mapping[str, Run]) -> Figure:
    """Plot a logged value over optimizer steps, one line per run."""
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = style_axes(figure.subplots())
    scale = 100 if _unit(key) == "%" else 1
    for index, (name, run) in enumerate(runs.items()):
        if key in run.lines:
            steps, values = (_averaged(part, POINTS) for part in run.lines[key])
            style = line_style(index) | ({"marker": ""} if len(steps) > 30 else {"markersize": 4})
            values = [scale * value for value in values]
            if key.startswith("train/") and len(values) > SMOOTH:  # the branches alternate
                axes.plot(steps, values, color=style["color"], alpha=0.2, linewidth=0.8)
                steps, values = _averaged(steps, SMOOTH), _averaged(values, SMOOTH)
            axes.plot(steps, values, label=name, **style)
    axes.set(title=key, xlabel="Optimizer step", ylabel=_unit(key))
    if len(runs) > 1:
        axes.legend(fontsize="small")
    return figure


def pictures(run: Run, name: str) -> str:
    """Return the figures in a run folder."""
    folder = run.folder / "pictures"
    files = sorted(folder.glob("*.png"), key=lambda file: (not file.stem.startswith("train"), file))
    captions = {picture.key.replace("/", "_"): picture.caption for picture in PICTURES}
    shown = [
        embedded(file.read_bytes(), captions.get(file.stem, file.stem.replace("_", " ")))
        for file in files
    ]
    if not shown:
        return ""
    heading = f"Attention, calibration, and errors{_of(name)}"
    return f"<h2>{heading}</h2><div class=panels>{''.join(shown)}</div>"


def details(run: Run, name: str) -> str:
    """Return all test metrics, versions, and the config, collapsed."""
    parts = []
    if run.metrics:
        rows = "".join(
            f"<tr><td>{escape(metric_name(key))}</td>{_cell(key, value)}</tr>"
            for key, value in run.metrics.items()
        )
        parts.append(f"<details><summary>All test metrics</summary><table>{rows}</table></details>")
    if run.about:
        rows = "".join(
            f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
            for key, value in run.about.items()
        )
        parts.append(f"<details><summary>Run</summary><table>{rows}</table></details>")
    if run.config:
        config = escape(run.config)
        parts.append(f"<details><summary>Config</summary><pre>{config}</pre></details>")
    return f"<h2>Details{_of(name)}</h2>{''.join(parts)}" if parts else ""


def image(figure: Figure, caption: str) -> str:
    """Return a figure embedded in the page."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return embedded(content.getvalue(), caption)


def embedded(png: bytes, caption: str) -> str:
    """Return a PNG embedded in the page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    text = escape(caption, quote=True)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _averaged(values: Sequence[float], points: int) -> list[float]:
    """Average neighbors so that at most `points` values are left."""
    size = -(-len(values) // points)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def _unit(key: str) -> str:
    spec = metric_spec(key)
    units = {"fraction": "%", "seconds": "s"}
    return "" if spec is None else units.get(spec.unit, spec.unit)


def _meaning(key: str) -> str:
    spec = metric_spec(key)
    meaning = key if spec is None else spec.meaning
    stages = {"val": "validation", "val_weights": "validation, trained weights", "test": "test"}
    stage = stages.get(key.split("/")[0])
    return f"{meaning} ({stage})" if stage else meaning


def _cell(key: str, value: float | None) -> str:
    return f"<td class=number>{'' if value is None else metric_value(key, value)}</td>"


def _of(name: str) -> str:
    return f": {escape(name)}" if name else ""
