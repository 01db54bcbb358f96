"""What an evaluation found, and the files that keep it: results.json and results.csv."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smmix_pl.errors import InputError

RUN = {"model", "mixer", "data", "image_size", "seed", "git_commit"}
"""What results say of their run, at the least."""


@dataclass(frozen=True)
class Curve:
    """A metric against one quantity.

    Attributes:
        x: The quantity, growing; 0 stands for the plain images.
        y: The metric at each.
    """

    x: list[float]
    y: list[float]

    @property
    def area(self) -> float:
        """Area under the curve over its range, by trapezoids: a mean, in the metric's unit."""
        steps = zip(self.x, self.x[1:], self.y, self.y[1:], strict=False)
        area = sum((b - a) * (low + high) / 2 for a, b, low, high in steps)
        return area / (self.x[-1] - self.x[0])


@dataclass(frozen=True)
class EvalResult:
    """What one evaluation found, under names without the stage.

    Attributes:
        protocol: How it was measured: whatever changes the numbers.
        images: How many images over all ranks.
        scalars: Single numbers.
        curves: Each of their points, but the one at 0, is a metric of its own.
        bins: Columns of a reliability diagram.
    """

    protocol: dict[str, Any]
    images: int
    scalars: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    bins: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Every single number, those of the curves among them: ``occlusion_25``."""
        points = {
            f"{name}_{x:g}": y
            for name, curve in self.curves.items()
            for x, y in zip(curve.x, curve.y, strict=True)
            if x
        }
        return self.scalars | points


def as_json(run: dict[str, Any], reports: Sequence[EvalResult]) -> dict[str, Any]:
    """The content of results.json.

    Args:
        run: What was evaluated: model, data, checkpoint, seed, versions and so on.
        reports: Of all evaluations; where two found the same metric, the first counts, and of two
            curves of one name the one with more points.
    """
    metrics: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    bins: dict[str, Any] = {}
    for report in reports:
        how = {"images": report.images, "protocol": report.protocol}
        for name, value in report.metrics.items():
            metrics.setdefault(name, {"value": value} | how)
        for name, curve in report.curves.items():
            if name not in curves or len(curve.x) > len(curves[name]["x"]):
                curves[name] = asdict(curve) | how
        for name, columns in report.bins.items():
            bins.setdefault(name, columns | how)
    return {"run": run, "metrics": metrics, "curves": curves, "reliability": bins}


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json and, one metric a row, results.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("metric", "value", "images", "protocol"))
        for name, found in results["metrics"].items():
            protocol = json.dumps(found["protocol"])
            writer.writerow((name, found["value"], found["images"], protocol))


def read_results(run: Path) -> dict[str, Any]:
    """The content of a run folder's results.json.

    Raises:
        InputError: There is none, or it is not ours.
    """
    file = run / "results.json" if run.is_dir() else run
    try:
        results: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {file}; `lightning test` writes it with the callback Results, "
            "which --config with/eval.yaml adds"
        ) from error
    except (ValueError, RecursionError) as error:  # also of JSON that nests without end
        raise InputError(f"{file} is not JSON ({error}); run the test again") from error
    if not _whole(results):
        raise InputError(f"{file} was not written by smmix_pl's Results; run the test again")
    return results


def _whole(results: Any) -> bool:
    """Whether results have what a comparison reads."""
    try:
        return (
            results["run"].keys() >= RUN
            and all(
                isinstance(found["value"], int | float) and isinstance(found["protocol"], dict)
                for found in results["metrics"].values()
            )
            and all(
                len(found["x"]) == len(found["y"])
                and all(isinstance(number, int | float) for number in found["x"] + found["y"])
                for found in results["curves"].values()
            )
            and all(
                {"total", "confidence", "accuracy"} <= found.keys()
                for found in results["reliability"].values()
            )
            and all(
                re.fullmatch(r"[\w.-]+", name)  # they name files
                for part in ("metrics", "curves", "reliability")
                for name in results[part]
            )
            and all(isinstance(found["images"], int) for found in results["metrics"].values())
            and all(isinstance(results["run"][name], str) for name in ("model", "mixer", "data"))
            and isinstance(results["run"]["git_commit"], str | None)
            and all(
                isinstance(results["run"].get(name, kind()), kind)
                for name, kind in (("parameters", int), ("tokens", list), ("images", dict))
            )
            and isinstance(results["run"]["image_size"], list)
        )
    except (AttributeError, KeyError, TypeError):
        return False
