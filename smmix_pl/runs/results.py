"""Results of an evaluation, and the files that store them: results.json and results.csv."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from smmix_pl.errors import InputError
from smmix_pl.runs.run_files import inside_run, write_atomic

UNKNOWN = "unknown"
"""Mixer of weights that were not trained by this package."""


@dataclass(frozen=True)
class Curve:
    """A metric as a function of one quantity.

    Attributes:
        x: Values of the quantity, increasing. 0 stands for unmodified images.
        y: Metric at each value.
    """

    x: list[float]
    y: list[float]

    @property
    def area(self) -> float:
        """Mean of the metric over the range of x, by the trapezoidal rule."""
        steps = zip(self.x, self.x[1:], self.y, self.y[1:], strict=False)
        area = sum((b - a) * (low + high) / 2 for a, b, low, high in steps)
        return area / (self.x[-1] - self.x[0])


@dataclass(frozen=True)
class EvalResult:
    """Results of one evaluation. Names have no stage prefix.

    Attributes:
        protocol: Every setting that affects the values.
        images: Number of images over all ranks.
        scalars: Metrics with a single value.
        curves: Curves. Each point except the one at 0 is also a metric.
        bins: Columns of reliability diagrams.
    """

    protocol: dict[str, Any]
    images: int
    scalars: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    bins: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics, including the points of curves, such as `occlusion_25`."""
        points = {
            f"{name}_{x:g}": y
            for name, curve in self.curves.items()
            for x, y in zip(curve.x, curve.y, strict=True)
            if x
        }
        return self.scalars | points


def as_json(run: dict[str, Any], reports: Sequence[EvalResult]) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        run: Description of the run: model, data, checkpoint, seed, and versions.
        reports: Results of all evaluations. If two contain the same metric, the first is used. Of
            two curves with the same name, the one with more points is used.
    """
    metrics: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    bins: dict[str, Any] = {}
    for report in reports:
        details = {"images": report.images, "protocol": report.protocol}
        for name, value in report.metrics.items():
            metrics.setdefault(name, {"value": value} | details)
        for name, curve in report.curves.items():
            if name not in curves or len(curve.x) > len(curves[name]["x"]):
                curves[name] = asdict(curve) | details
        for name, columns in report.bins.items():
            bins.setdefault(name, columns | details)
    return {"run": run, "metrics": metrics, "curves": curves, "reliability": bins}


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json, and results.csv with one row per metric."""
    write_atomic(folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    table = StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("metric", "value", "images", "protocol"))
    for name, metric in results["metrics"].items():
        protocol = json.dumps(metric["protocol"])
        writer.writerow((name, metric["value"], metric["images"], protocol))
    write_atomic(folder / "results.csv", table.getvalue().encode())


def read_results(run: Path) -> dict[str, Any]:
    """Return the content of a results.json file.

    Args:
        run: Run folder, or the file itself.

    Raises:
        InputError: The file is missing, was not written by ResultsFile, or is a link out of the run
            folder.
    """
    file = inside_run(run, run / "results.json") if run.is_dir() else run
    try:
        results: dict[str, Any] = json.loads(file.read_text())
        SCHEMA.validate_python(results)
    except FileNotFoundError as error:
        raise InputError(
            f"{file}: no such file. Run smmix test with --config with/eval.yaml, which adds the "
            "callback ResultsFile."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise InputError(
            f"{file}: not written by ResultsFile ({place}: {first['msg']}). Run the test again."
        ) from error
    except (ValueError, RecursionError) as error:  # RecursionError: deeply nested JSON
        raise InputError(f"{file}: not JSON ({error}). Run the test again.") from error
    return results


Name = Annotated[str, Field(pattern=r"^[\w-]+(\.[\w-]+)*$")]
"""Name of a metric or curve, which is also used in file names."""
Numbers = list[float]


def _of_equal_length(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    if len({len(column) for column in columns.values() if isinstance(column, list)}) > 1:
        raise ValueError("columns differ in length")
    return columns


class RunEntry(TypedDict):
    """Description of a run, as far as comparisons and reports read it."""

    model: str
    mixer: str
    data: str
    image_size: list[int]
    seed: int
    git_commit: str | None
    task: NotRequired[str]
    parameters: NotRequired[int]
    tokens: NotRequired[list[int]]
    images: NotRequired[dict[str, Any]]


class MetricEntry(TypedDict):
    """A metric with its protocol."""

    value: float
    images: int
    protocol: dict[str, Any]


class CurveEntry(TypedDict):
    """Points of a curve."""

    x: Numbers
    y: Numbers


class BinsEntry(TypedDict):
    """Columns of a reliability diagram."""

    total: Numbers
    confidence: Numbers
    accuracy: Numbers


@with_config(ConfigDict(strict=True))
class Results(TypedDict):
    """Content of results.json."""

    run: RunEntry
    metrics: dict[Name, MetricEntry]
    curves: dict[Name, Annotated[CurveEntry, AfterValidator(_of_equal_length)]]
    reliability: dict[Name, Annotated[BinsEntry, AfterValidator(_of_equal_length)]]


SCHEMA = TypeAdapter(Results)
