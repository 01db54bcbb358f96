"""Comparison of methods that were run with the same seeds: paired differences with intervals."""

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student_t

from smmix_pl.errors import InputError
from smmix_pl.reporting.comparison import (
    Results,
    best_names,
    different_protocols,
    figures,
    markdown,
    named_folders,
    save_figures,
)
from smmix_pl.reporting.metric_names import footnotes, metric_name, metric_value, shown_metrics
from smmix_pl.runs.results import read_results

Method = Mapping[int, Results]
"""Results by seed."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean difference of a method from the baseline, over the seeds that both have.

    Attributes:
        mean: Mean of the differences within a seed.
        margin: Half of the 95% interval of the mean by Student's t. NaN with fewer than two seeds.
        seeds: Number of shared seeds, at least 1.
    """

    mean: float
    margin: float
    seeds: int

    @property
    def is_distinguishable(self) -> bool:
        """True if the interval excludes zero."""
        return abs(self.mean) > self.margin


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Compare values by seed with those of a baseline. They share at least one seed."""
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    count = len(differences)
    margin = math.nan
    if count > 1:
        quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1))
        margin = quantile * statistics.stdev(differences) / math.sqrt(count)
    return Difference(statistics.mean(differences), margin, count)


def has_seeds(words: Sequence[str]) -> bool:
    """Return True if a folder, named as for `named_folders`, holds runs and is none itself."""
    return any(
        not (folder / "results.json").exists() and _runs_in(folder)
        for folder in named_folders(words).values()
    )


def read_methods(words: Sequence[str]) -> dict[str, Method]:
    """Return the runs of each method by seed, for words such as `NAME=FOLDER`.

    Args:
        words: As for `named_folders`. A folder holds the runs of one method, or is one run.

    Raises:
        InputError: A run has no results, two runs of a method have one seed, or a method has no
            seed in common with the first.
    """
    methods: dict[str, Method] = {}
    for name, folder in named_folders(words).items():
        by_seed: dict[int, Results] = {}
        methods[name] = by_seed
        for run in _runs_in(folder) or [folder]:
            add_run(by_seed, read_results(run), name, run)
    check_shared_seeds(methods)
    return methods


def add_run(by_seed: dict[int, Results], results: Results, name: str, run: Path) -> None:
    """Add the results of a run of a method.

    Raises:
        InputError: The method has another run with the same seed.
    """
    seed = results["run"]["seed"]
    if seed in by_seed:
        raise InputError(f"{run}: {name} has another run with seed {seed}. Remove one.")
    by_seed[seed] = results


def check_shared_seeds(methods: Mapping[str, Method]) -> None:
    """Check that every method can be paired with the first.

    Raises:
        InputError: A method has no seed in common with it.
    """
    baseline = next(iter(methods))
    for name, method in methods.items():
        if not method.keys() & methods[baseline].keys():
            raise InputError(
                f"{name}: has no seed in common with {baseline}, so differences cannot be paired. "
                "Run both with the same seeds."
            )


def write_paired_comparison(methods: Mapping[str, Method], output: Path) -> str:
    """Write means and paired differences from the first method, and curves, into a folder.

    Args:
        methods: Methods by name, as of `read_methods`.
        output: Folder to write to.

    Returns:
        The table as Markdown, with notes.
    """
    text = markdown(paired_table(methods))
    text += "".join(f"\n- {note}\n" for note in paired_notes(methods))
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text(text)
    with (output / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(_csv_rows(methods))
    by_method = {name: list(by_seed.values()) for name, by_seed in methods.items()}
    save_figures(figures(by_method), output)
    return text


def paired_table(methods: Mapping[str, Method]) -> list[list[str]]:
    """Return the cells of a table with one row per metric, the best mean in bold (`**`)."""
    baseline = next(iter(methods))
    unequal = different_protocols(_every_run(methods))
    header = ["", *(f"{name} (n = {len(by_seed)})" for name, by_seed in methods.items())]
    lines = [header]
    for metric in shown_metrics(_shared_metrics(methods)):
        values = {name: _values(by_seed, metric) for name, by_seed in methods.items()}
        means = {name: statistics.mean(by_seed.values()) for name, by_seed in values.items()}
        best = set() if metric in unequal else best_names(metric, means)
        cells = [metric_name(metric)]
        for name, by_seed in values.items():
            cell = _mean_and_deviation(metric, list(by_seed.values()))
            cell = f"**{cell}**" if name in best else cell
            if name != baseline:
                cell += _described(metric, paired_difference(by_seed, values[baseline]))
            cells.append(cell)
        lines.append(cells)
    return lines


def _csv_rows(methods: Mapping[str, Method]) -> Iterator[tuple[object, ...]]:
    baseline = next(iter(methods))
    yield "metric", "method", "mean", "deviation", "runs", "difference", "margin", "seeds"
    for metric in _shared_metrics(methods):
        for name, method in methods.items():
            by_seed = _values(method, metric)
            found = list(by_seed.values())
            deviation = statistics.stdev(found) if len(found) > 1 else math.nan
            difference = paired_difference(by_seed, _values(methods[baseline], metric))
            paired = (difference.mean, difference.margin, difference.seeds)
            yield metric, name, statistics.mean(found), deviation, len(found), *paired


def _mean_and_deviation(metric: str, values: list[float]) -> str:
    mean = metric_value(metric, statistics.mean(values))
    return f"{mean} ± {metric_value(metric, statistics.stdev(values))}" if len(values) > 1 else mean


def _runs_in(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("*/results.json"))


def _shared_metrics(methods: Mapping[str, Method]) -> list[str]:
    """Return the metrics that every run has."""
    first, *others = [run["metrics"] for by_seed in methods.values() for run in by_seed.values()]
    return [metric for metric in first if all(metric in other for other in others)]


def _values(method: Method, metric: str) -> dict[int, float]:
    return {seed: run["metrics"][metric]["value"] for seed, run in method.items()}


def _described(metric: str, difference: Difference) -> str:
    """Return the difference with its interval, marked if it excludes zero."""
    if math.isnan(difference.margin):
        return f" ({_signed(metric, difference.mean)})"
    mark = "\\*" if difference.is_distinguishable else ""
    margin = metric_value(metric, difference.margin)
    return f" ({_signed(metric, difference.mean)} ± {margin}){mark}"


def _signed(metric: str, value: float) -> str:
    return ("+" if value >= 0 else "") + metric_value(metric, value)


def paired_notes(methods: Mapping[str, Method]) -> Iterator[str]:
    """Yield how to read the table, and which numbers cannot be compared."""
    baseline = next(iter(methods))
    yield "Mean ± sample standard deviation over n seeds. Bold: best mean."
    yield (
        f"In parentheses: difference from {baseline} in absolute terms, paired by seed, with the "
        "margin of its 95% interval (Student's t)."
    )
    yield "\\*: the interval excludes zero. It is not corrected for the number of comparisons."
    for name, by_seed in methods.items():
        shared = sorted(by_seed.keys() & methods[baseline].keys())
        yield f"{name}: {len(by_seed)} runs; paired by seeds {', '.join(map(str, shared))}"
    for metric in different_protocols(_every_run(methods)):
        yield f"{metric_name(metric)}: not comparable, because the protocols differ."
    yield from footnotes(_shared_metrics(methods))


def _every_run(methods: Mapping[str, Method]) -> dict[str, Results]:
    return {f"{name} {seed}": run for name, runs in methods.items() for seed, run in runs.items()}
