"""One HTML page about one run or several, without scripts and without network access."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape

from matplotlib.figure import Figure

from smmix_pl.plots.style import png_of
from smmix_pl.reporting import comparison as compare
from smmix_pl.reporting.line_plots import can_share_a_plot, caption, line_plot
from smmix_pl.reporting.logged_run import Run, headline
from smmix_pl.reporting.metric_names import footnotes, metric_name, metric_value, shown_metrics
from smmix_pl.reporting.metric_specs import HEADLINE
from smmix_pl.reporting.paired_seeds import (
    Method,
    add_run,
    check_shared_seeds,
    paired_notes,
    paired_table,
)
from smmix_pl.reporting.panels import PANELS, PICTURES, panel_keys

STYLE = """
:root { color-scheme: light; --line: #d8dee6; --pale: #f5f7fa; --ink: #1c2733; --soft: #5b6b7c; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: white;
       margin: 0 auto; max-width: 76rem; padding: 1.2rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .3rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .4rem 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; }
.tile { background: var(--pale); border-radius: .5rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.35rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr));
          gap: 1rem; }
figure { margin: 0; min-width: 0; } figcaption { color: var(--soft); font-size: .88rem; }
@media (min-width: 50rem) { .wide { grid-column: span 2; grid-row: span 2; } }
img { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }
td:first-child { min-width: 8rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--pale); padding: .8rem; overflow-x: auto; font-size: .8rem; }
summary { cursor: pointer; }
"""


Methods = Mapping[str, Sequence[Run]]
"""Runs of each seed by name."""


def html(methods: Methods) -> str:
    """Return the page about one run, or about several with their comparison first.

    Args:
        methods: Runs by name: one, or one for each seed.

    Raises:
        InputError: A method has two runs with one seed, or no seed in common with the first.
    """
    runs = [run for seeds in methods.values() for run in seeds]
    several = len(runs) > 1
    title = "Comparison: " + ", ".join(methods) if several else headline(runs[0])
    body = [f"<h1>{escape(title)}</h1>"]
    body.append(comparison(methods) if several else facts(runs[0]) + tiles(runs[0]))
    learning, *others = (
        panel_section(panel.question, panel_keys(name), methods) for name, panel in PANELS.items()
    )
    first = {name if several else "": seeds[0] for name, seeds in methods.items()}
    body += [learning, *(pictures(run, name) for name, run in first.items()), *others]
    body += [details(run, name) for name, run in first.items()]
    return page(title, [part for part in body if part])


def page(title: str, parts: Sequence[str]) -> str:
    """Return a self-contained HTML page.

    Args:
        title: Title, as plain text.
        parts: Content of the body, as HTML.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


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


def comparison(methods: Methods) -> str:
    """Return the table and the overlaid curves of `smmix compare`."""
    tested = {name: [run for run in runs if run.results] for name, runs in methods.items()}
    tested = {name: runs for name, runs in tested.items() if runs}
    results = {name: [run.results for run in runs] for name, runs in tested.items()}
    if sum(map(len, results.values())) < 2:
        return "<p>Fewer than two runs were tested, so only their training is compared.</p>"
    if all(len(runs) == 1 for runs in results.values()):
        single = {name: only for name, [only] in results.items()}
        published = compare.common_published(list(single.values()))
        lines = compare.table(single, compare.as_columns(single, published))
        notes = compare.notes(single, published)
        drawn = compare.figures(results, published)
    else:
        by_seed = _by_seed(tested)
        lines, notes = paired_table(by_seed), list(paired_notes(by_seed))
        drawn = compare.figures(results)
    panels = "".join(
        image(figure, f"{_curve_caption(name)}. One line per run or method.")
        for name, figure in drawn.items()
    )
    text = "".join(f"<p class=soft>{_inline(note)}</p>" for note in notes)
    return f"<h2>Test metrics</h2>{_table(lines)}{text}<div class=panels>{panels}</div>"


def _by_seed(tested: Methods) -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for name, runs in tested.items():
        by_seed: dict[int, compare.Results] = {}
        for run in runs:
            add_run(by_seed, run.results, name, run.folder)
        methods[name] = by_seed
    check_shared_seeds(methods)
    return methods


def _curve_caption(name: str) -> str:
    if name.startswith("reliability"):
        return "Accuracy by mean confidence of the test images; the diagonal is perfect calibration"
    captions = {picture.key: picture.caption for picture in PICTURES}
    return captions.get(f"test/{name}", metric_name(name))


def _table(lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells may have Markdown's bold."""
    header, *rows = lines
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><td>{_inline(first)}</td>"
        + "".join(f"<td class=number>{_inline(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text)).replace("\\*", "*")


def panel_section(question: str, keys: Sequence[str], methods: Methods) -> str:
    """Return one line plot per key that any run logged; test metrics are in the table."""
    logged = {key for runs in methods.values() for run in runs for key in run.lines}
    panels = [
        image(line_plot(key, methods), caption(key, methods))
        for key in keys
        if key in logged and not key.startswith("test/") and can_share_a_plot(key, methods)
    ]
    return f"<h2>{question}</h2><div class=panels>{''.join(panels)}</div>" if panels else ""


def pictures(run: Run, name: str) -> str:
    """Return the figures in a run folder."""
    folder = run.folder / "pictures"
    files = sorted(folder.glob("*.png"), key=lambda file: (not file.stem.startswith("val"), file))
    captions = {picture.key.replace("/", "_"): picture.caption for picture in PICTURES}
    shown = [
        embedded(
            file.read_bytes(),
            captions.get(file.stem, file.stem.replace("_", " ")) + ".",
            wide=file.stem == "val_mixing",
        )
        for file in files
    ]
    if not shown:
        return ""
    seed = f", seed {run.about['seed']}" if name and run.about else ""
    heading = f"Pictures{_of(name)}{seed}"
    return f"<h2>{heading}</h2><div class=panels>{''.join(shown)}</div>"


def details(run: Run, name: str) -> str:
    """Return all test metrics, versions, and the config, collapsed."""
    parts = []
    if run.metrics:
        shown = shown_metrics(run.metrics)
        lines = [(metric_name(key), metric_value(key, run.metrics[key])) for key in shown]
        notes = "".join(f"<p class=soft>{escape(note)}</p>" for note in footnotes(shown))
        parts.append(_collapsed("All test metrics", _table([("Metric", "Value"), *lines]) + notes))
    if run.about:
        rows = "".join(
            f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
            for key, value in run.about.items()
        )
        parts.append(_collapsed("Run", f"<div class=scroll><table>{rows}</table></div>"))
    if run.config:
        parts.append(_collapsed("Config", f"<pre>{escape(run.config)}</pre>"))
    return f"<h2>Details{_of(name)}</h2>{''.join(parts)}" if parts else ""


def _collapsed(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def image(figure: Figure, caption: str) -> str:
    """Return a figure embedded in the page."""
    return embedded(png_of(figure), caption)


def embedded(png: bytes, caption: str, wide: bool = False) -> str:
    """Return a PNG embedded in the page, two columns wide if requested and possible."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    text = escape(caption, quote=True)
    tag = "<figure class=wide>" if wide else "<figure>"
    return f'{tag}<img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _of(name: str) -> str:
    return f": {escape(name)}" if name else ""
