"""Comparison of methods that were run with the same seeds: paired differences with intervals."""

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student_t

from smmix_pl.errors import InputError
from smmix_pl.reporting.comparison import Results, different_protocols, named_folders
from smmix_pl.reporting.metric_specs import metric_name, metric_value
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
            results = read_results(run)
            seed = results["run"]["seed"]
            if seed in by_seed:
                raise InputError(f"{run}: {name} has another run with seed {seed}. Remove one.")
            by_seed[seed] = results
    baseline = next(iter(methods))
    for name, method in methods.items():
        if not method.keys() & methods[baseline].keys():
            raise InputError(
                f"{name}: has no seed in common with {baseline}, so differences cannot be paired. "
                "Run both with the same seeds."
            )
    return methods


def write_paired_comparison(methods: Mapping[str, Method], output: Path) -> str:
    """Write means and paired differences from the first method as Markdown and CSV.

    Args:
        methods: Methods by name, as of `read_methods`.
        output: Folder to write to.

    Returns:
        The table as Markdown, with notes.
    """
    baseline, *others = methods
    compared = {
        metric: {name: _values(methods[name], metric) for name in methods}
        for metric in _shared_metrics(methods)
    }
    lines = [["", baseline, *others], ["---"] * (len(methods) + 1)]
    rows = [("metric", "method", "mean", "difference", "margin", "seeds")]
    for metric, values in compared.items():
        cells = [metric_name(metric)]
        for name, by_seed in values.items():
            mean = statistics.mean(by_seed.values())
            difference = paired_difference(by_seed, values[baseline])
            cells.append(metric_value(metric, mean))
            if name != baseline:
                cells[-1] += _described(metric, difference)
            numbers = (difference.mean, difference.margin, difference.seeds)
            rows.append((metric, name, mean, *numbers))  # type: ignore[arg-type]
        lines.append(cells)
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    table += "".join(f"\n{line}" for line in _notes(methods))
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text(table)
    with (output / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return table


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


def _notes(methods: Mapping[str, Method]) -> Iterator[str]:
    baseline = next(iter(methods))
    yield (
        f"- In parentheses: difference from {baseline} in absolute terms, paired by seed, with the "
        "margin of its 95% interval (Student's t).\n"
    )
    yield "- \\*: the interval excludes zero. It is not corrected for the number of comparisons.\n"
    for name, by_seed in methods.items():
        shared = sorted(by_seed.keys() & methods[baseline].keys())
        yield f"- {name}: {len(by_seed)} runs; paired by seeds {', '.join(map(str, shared))}\n"
    every = {f"{name} {seed}": run for name, runs in methods.items() for seed, run in runs.items()}
    for metric in different_protocols(every):
        yield f"- {metric_name(metric)}: not comparable, because the protocols differ.\n"
