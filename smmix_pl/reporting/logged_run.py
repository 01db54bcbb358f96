"""The content of a run folder: results, logged lines, and config."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from smmix_pl.errors import InputError
from smmix_pl.reporting.comparison import method, named_folders
from smmix_pl.runs.results import read_results
from smmix_pl.runs.run_files import check_run_folder, read_config


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

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The resolved config, parsed; empty if it is missing or invalid."""
        return read_config(self.folder)

    @property
    def about(self) -> dict[str, Any]:
        """Description of the run: model, mixer, data, versions."""
        about: dict[str, Any] = self.results.get("run", {})
        return about

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics by name."""
        return {key: found["value"] for key, found in self.results.get("metrics", {}).items()}


def read_reported(words: Sequence[str]) -> dict[str, list[Run]]:
    """Return runs by name, for words as of `named_folders`.

    Args:
        words: Each names the folder of a run, or one that holds the runs of several seeds.

    Raises:
        InputError: A folder has no run.
    """
    found = {}
    for name, folder in named_folders(words).items():
        inside = [] if is_run(folder) else sorted(filter(is_run, folder.glob("*/")))
        found[name] = [read_run(run) for run in inside or [folder]]
    return found


def is_run(folder: Path) -> bool:
    """Return True if a folder has a log or results."""
    return any((folder / name).is_file() for name in ("metrics.csv", "results.json"))


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: It is not the folder of a run, or a link leads out of it.
    """
    log, config = folder / "metrics.csv", folder / "config.yaml"
    if not is_run(folder):
        raise InputError(
            f"{folder}: has neither metrics.csv nor results.json. Pass the folder of a run, which "
            "ends in version_0 or similar."
        )
    check_run_folder(folder)
    tested = (folder / "results.json").is_file()
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


def headline(run: Run) -> str:
    """Return mixer, model, data, and seed in one line."""
    about = run.about or configured(run)
    if not about:
        return str(run.folder)
    return f"{method(about)}: {about['model']} on {about['data']}, seed {about['seed']}"


def configured(run: Run) -> dict[str, Any]:
    """Return mixer, model, data, and seed of a run that was not tested, from its config."""
    settings = run.settings
    try:
        model = settings["model"]
        named = model if "class_path" in model else model["mixer"]
        return {
            "mixer": named["class_path"].rsplit(".")[-1],
            "model": model.get("init_args", model)["backbone"],
            "data": settings["data"]["class_path"].rsplit(".")[-1],
            "seed": settings["seed_everything"],
        }
    except (LookupError, TypeError, AttributeError):
        return {}


def loss_settings(run: Run) -> str:
    """Return mixer and loss weights of a run as text: runs with equal ones sum the same losses."""
    settings = run.settings.get("model")
    settings = settings if isinstance(settings, dict) else {}
    return json.dumps([settings.get("mixer"), settings.get("losses")], default=str)
