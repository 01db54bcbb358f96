"""One run, or several side by side, as one HTML file: it needs no network and no scripts.

``python -m smmix_pl.reporting.html_report RUN [NAME=RUN ...] --output report.html``
"""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from smmix_pl.cli.input_errors import WordsParser, report_input_errors
from smmix_pl.errors import InputError
from smmix_pl.plots.style import line_style, style_axes
from smmix_pl.reporting import comparison as compare
from smmix_pl.reporting.logged_keys import METRICS, PICTURES, SUITE_PICTURES
from smmix_pl.reporting.metric_specs import metric_name, metric_value
from smmix_pl.runs.results import read_results

HEADLINE = (
    *("top1", "top5", "ece", "ece_scaled", "nll", "brier", "worst_class_top1"),
    *("occlusion_25", "occlusion_50", "occlusion_75", "occlusion_auc_75"),
)
CURVES = {
    "Does it learn?": ("train/loss", "val/loss", "val/top1", "val_weights/top1", "val/ece"),
    "What does the mixer do?": ("train/branch", "train/lam", "train/region_side"),
    "Its losses": (
        *("train/loss_classification", "train/loss_fine_grained_target"),
        *("train/loss_fine_grained_source", "train/loss_consistency"),
    ),
    "Where does the attention go?": (
        *("attention/entropy", "attention/copied", "attention/covered", "attention/pasted"),
        "attention/windows_overlap",
    ),
    "Is it healthy, and what does it cost?": (
        *("lr", "train/grad_norm", "train/weight_norm", "images_per_second"),
        *("time/data", "time/guide", "time/mix", "time/train", "memory/peak_gib"),
    ),
}
"""What was logged over the steps, by the question that it answers."""
SHARES = ("top1", "top5", "ece")
POINTS = 200
"""What a line is averaged down to."""
SMOOTH = 40
"""What the line over a pale noisy one is averaged down to."""
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
    """What a run folder holds.

    Attributes:
        folder: Where.
        results: Content of results.json; empty if the run was not tested.
        lines: Steps and values of each logged key.
        config: The config that was used, as text.
    """

    folder: Path
    results: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    config: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """Model, mixer, data and so on."""
        about: dict[str, Any] = self.results.get("run", {})
        return about

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics."""
        return {key: found["value"] for key, found in self.results.get("metrics", {}).items()}


def main(words: Sequence[str] | None = None) -> None:
    """Write the report."""
    parser = WordsParser(prog="python -m smmix_pl.reporting.html_report", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="folder of a run")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="file to write")
    with report_input_errors():
        options = parser.parse_args(words)
        runs = {name: read_run(folder) for name, folder in compare.named(options.runs).items()}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(html(runs))
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.1f} MiB, opens in a browser")


def read_run(folder: Path) -> Run:
    """What a run folder holds.

    Raises:
        InputError: It is not the folder of a run.
    """
    log, config = folder / "metrics.csv", folder / "config.yaml"
    tested = (folder / "results.json").is_file()
    if not log.is_file() and not tested:
        raise InputError(
            f"{folder} holds neither metrics.csv nor results.json; give the folder of a run, such "
            "as runs/digits/version_0"
        )
    return Run(
        folder,
        read_results(folder) if tested else {},
        _whole_lines(log) if log.is_file() else {},
        config.read_text(errors="replace") if config.is_file() else "",
    )


def _whole_lines(log: Path) -> dict[str, tuple[list[float], list[float]]]:
    try:
        return read_lines(log)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {str(error)[:100]}"
        raise InputError(
            f"{log} is no log of Lightning's CSVLogger ({told}); train again, or remove it"
        ) from error


def read_lines(log: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of each key of a metrics.csv."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            if None in row.values():
                continue  # cut off, as the last one of a run that was killed
            for key, value in row.items():
                if value and key not in ("step", "epoch"):
                    steps, values = lines.setdefault(key, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return lines


def html(runs: Mapping[str, Run]) -> str:
    """The report of one run, or of several with their comparison first.

    Args:
        runs: By name.
    """
    several = len(runs) > 1
    title = "Comparison: " + ", ".join(runs) if several else headline(*runs.values())
    body = [f"<h1>{escape(title)}</h1>"]
    if several:
        body.append(comparison(runs))
    else:
        body += [facts(run) + tiles(run) for run in runs.values()]
    learning, *others = (panel_section(what, keys, runs) for what, keys in CURVES.items())
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
    """Mixer, model and data in one line."""
    about = run.about or configured(run.config)
    if not about:
        return str(run.folder)
    return f"{about['mixer']}: {about['model']} on {about['data']}, seed {about['seed']}"


def configured(config: str) -> dict[str, Any]:
    """Mixer, model, data and seed of a run that was not tested, as its config names them."""
    told: Any = yaml.safe_load(config) or {}
    try:
        return {
            "mixer": told["model"]["mixer"]["class_path"].rsplit(".")[-1],
            "model": told["model"]["backbone"],
            "data": told["data"]["class_path"].rsplit(".")[-1],
            "seed": told["seed_everything"],
        }
    except (LookupError, TypeError, AttributeError):
        return {}


def facts(run: Run) -> str:
    """What was run, in a sentence or two."""
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
    """The test metrics that a paper quotes."""
    found = run.metrics
    cells = [
        f"<div class=tile>{escape(metric_name(key))}<b>{metric_value(key, found[key])}</b></div>"
        for key in HEADLINE
        if key in found
    ]
    return f"<h2>On the test set</h2><div class=tiles>{''.join(cells)}</div>" if cells else ""


def comparison(runs: Mapping[str, Run]) -> str:
    """The table and the overlaid curves of `smmix_pl.reporting.comparison`."""
    tested = {name: run.results for name, run in runs.items() if run.results}
    if len(tested) < 2:
        return "<p>Fewer than two of these runs were tested: only their training is compared.</p>"
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
    return f"<h2>On the test set</h2>{table}{notes}<div class=panels>{drawn}</div>"


def panel_section(question: str, keys: Sequence[str], runs: Mapping[str, Run]) -> str:
    """One line plot a key that any run logged."""
    panels = [
        image(line_plot(key, runs), METRICS[key])
        for key in keys
        if any(key in run.lines for run in runs.values())
    ]
    return f"<h2>{question}</h2><div class=panels>{''.join(panels)}</div>" if panels else ""


def line_plot(key: str, runs: Mapping[str, Run]) -> Figure:
    """A logged value over optimizer steps, one line a run."""
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = style_axes(figure.subplots())
    scale = 100 if key.split("/")[-1] in SHARES else 1
    for index, (name, run) in enumerate(runs.items()):
        if key in run.lines:
            steps, values = (_averaged(part, POINTS) for part in run.lines[key])
            style = line_style(index) | ({"marker": ""} if len(steps) > 30 else {"markersize": 4})
            values = [scale * value for value in values]
            if key.startswith("train/") and len(values) > SMOOTH:  # the branches alternate
                axes.plot(steps, values, color=style["color"], alpha=0.2, linewidth=0.8)
                steps, values = _averaged(steps, SMOOTH), _averaged(values, SMOOTH)
            axes.plot(steps, values, label=name, **style)
    axes.set(title=key, xlabel="optimizer step", ylabel=_unit(key))
    if len(runs) > 1:
        axes.legend(fontsize="small")
    return figure


def pictures(run: Run, name: str) -> str:
    """The pictures in a run's folder."""
    folder = run.folder / "pictures"
    files = sorted(folder.glob("*.png"), key=lambda file: (not file.stem.startswith("train"), file))
    told = {key.replace("/", "_"): what for key, what in (PICTURES | SUITE_PICTURES).items()}
    shown = [
        embedded(file.read_bytes(), told.get(file.stem, file.stem.replace("_", " ")))
        for file in files
    ]
    if not shown:
        return ""
    heading = f"Where it looks, how sure it is, what it confuses{_of(name)}"
    return f"<h2>{heading}</h2><div class=panels>{''.join(shown)}</div>"


def details(run: Run, name: str) -> str:
    """Every test metric, versions and the config, folded."""
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
        parts.append(f"<details><summary>What was run</summary><table>{rows}</table></details>")
    if run.config:
        config = escape(run.config)
        parts.append(f"<details><summary>Config</summary><pre>{config}</pre></details>")
    return f"<h2>Details{_of(name)}</h2>{''.join(parts)}" if parts else ""


def image(figure: Figure, caption: str) -> str:
    """A figure inside the page."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return embedded(content.getvalue(), caption)


def embedded(png: bytes, caption: str) -> str:
    """A PNG inside the page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    text = escape(caption, quote=True)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _averaged(values: Sequence[float], points: int) -> list[float]:
    """At most so many means of neighbors."""
    size = -(-len(values) // points)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def _unit(key: str) -> str:
    section, name = key.split("/") if "/" in key else ("", key)
    if name in SHARES:
        return "%"
    return {"time": "s", "memory": "GiB"}.get(section, "")


def _cell(key: str, value: float | None) -> str:
    return f"<td class=number>{'' if value is None else metric_value(key, value)}</td>"


def _of(name: str) -> str:
    return f": {escape(name)}" if name else ""


if __name__ == "__main__":
    main()
