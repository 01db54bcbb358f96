"""Print the GPU results as Markdown tables.

python benchmarks/gpu_report.py OUT           # print the tables of a run of benchmarks/gpu.sh
python benchmarks/gpu_report.py OUT --write   # and put them into benchmarks/README.md

The block between the markers in the README is replaced. A part without results, or with those of a
smoke run, is reported as not measured yet.
"""

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
README = Path(__file__).with_name("README.md")
Row = dict[str, Any]
Part = dict[str, Any]
Table = tuple[list[str], list[list[str]]]
"""Column titles, and the cells of each row."""


def main() -> None:
    """Print the tables, and write them on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder that benchmarks/gpu.sh wrote")
    parser.add_argument("--write", action="store_true", help="replace the block in the README")
    parser.add_argument("--readme", type=Path, default=README, help="file with the markers")
    parser.add_argument("--include-smoke", action="store_true", help="show results of a smoke run")
    options = parser.parse_args()
    text = report(options.out, options.include_smoke)
    print(text)
    if options.write:
        write(text, options.readme)


def report(out: Path, include_smoke: bool) -> str:
    """Return all sections as Markdown."""
    lines: list[str] = []
    for name, (title, table) in SECTIONS.items():
        part = read(out / f"{name}.json", include_smoke)
        columns, cells = table(part["results"] if part else [])
        empty = ["not measured yet", *[""] * (len(columns) - 1)]
        lines += [f"### {title}", "", line(columns), "|" + "---|" * len(columns)]
        lines += [line(row) for row in cells or [empty]]
        lines += ["", *conditions(part), ""] if part else [""]
    return "\n".join(lines).rstrip() + "\n"


def read(file: Path, include_smoke: bool) -> Part | None:
    """Return the content of a part's file, or None if the part has not been measured."""
    part: Part | None = json.loads(file.read_text()) if file.exists() else None
    return None if part and part["smoke"] and not include_smoke else part


def conditions(part: Part) -> Iterator[str]:
    """Yield what the numbers were measured with, and what is missing."""
    machine = part["environment"]
    packages = ("python", "torch", "torchvision", "timm", "lightning")
    versions = ", ".join(f"{name} {machine[name]}" for name in packages if machine[name])
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in part["settings"].items()
    )
    yield (
        f"{machine['device']}, {machine['cpu_cores']} cores, driver {machine['driver']}; "
        f"{versions}; commit {machine['commit']}, {machine['date']}; {settings}."
    )
    if part["status"] == "incomplete":
        yield "The part was stopped before it was complete."
    for problem in part["problems"]:
        yield f"- {problem['what']}: {problem['error']}"


def tests_table(rows: list[Row]) -> Table:
    """Return the number of tests by outcome."""
    outcomes = Counter(row["outcome"] for row in rows)
    counts = [str(outcomes[name]) for name in ("passed", "failed", "skipped")]
    seconds = sum(row["seconds"] for row in rows)
    cells = [[*counts, f"{seconds:.0f}"]] if rows else []
    return ["passed", "failed", "skipped", "seconds"], cells


def steps_table(rows: list[Row]) -> Table:
    """Return one row per model and variant, with its eager and its compiled step."""
    measures = ("images/s", "step / CutMix step", "peak GiB", "MFU (%)")
    modes = ("eager", "compiled")
    columns = ["model", "step", *(f"{measure}, {mode}" for mode in modes for measure in measures)]
    by_variant: dict[tuple[str, str], dict[bool, Row]] = defaultdict(dict)
    for row in rows:
        by_variant[row["model"], row["variant"]][row["compiled"]] = row
    return columns, [
        [*names, *step_cells(found.get(False)), *step_cells(found.get(True))]
        for names, found in by_variant.items()
    ]


def step_cells(row: Row | None) -> list[str]:
    """Return the cells of one way to run a step, blank if it was not measured."""
    if row is None:
        return [""] * 4
    return [
        number(row["images_per_second"], 0),
        number(row["step_over_cutmix"], 2),
        number(row["peak_gib"], 1),
        number(row["mfu"] and 100 * row["mfu"], 1),
    ]


def loader_table(rows: list[Row]) -> Table:
    """Return one row per loader."""
    columns = ["loader", "images/s", "range", "/ timm", "/ fastest DeiT-S SMMix step"]
    return columns, [
        [
            row["loader"],
            number(row["images_per_second"], 0),
            " to ".join(number(value, 0) for value in row["images_per_second_range"]),
            number(row["over_timm"], 2),
            number(row["over_training_step"], 2),
        ]
        for row in rows
    ]


def overhead_table(rows: list[Row]) -> Table:
    """Return one row per way to train the digits."""
    columns = ["variant", "ms per step", "on top of plain", "ms per logged step", "waits per step"]
    return columns, [
        [
            row["variant"],
            *(number(row[name], 2) for name in ("ms", "over_plain_ms", "ms_logged", "waits")),
        ]
        for row in rows
    ]


def cifar_table(rows: list[Row]) -> Table:
    """Return one row per method: mean and deviation over seeds, in percent."""
    metrics = {
        "top1": "top-1",
        "ece": "ECE",
        "occlusion_25": "25% occlusion",
        "occlusion_50": "50% occlusion",
        "occlusion_75": "75% occlusion",
        "occlusion_auc_75": "mean over 0 to 75% occlusion",
    }
    by_method: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        by_method[row["method"]].append(row)
    return ["method", "seeds", "epochs", "s per epoch", *metrics.values()], [
        [
            method,
            " ".join(str(run["seed"]) for run in runs),
            " ".join(str(epochs) for epochs in sorted({run["epochs"] for run in runs})),
            number(statistics.mean(run["train_seconds"] / run["epochs"] for run in runs), 2),
            *(mean_and_deviation([100 * run[name] for run in runs]) for name in metrics),
        ]
        for method, runs in by_method.items()
    ]


SECTIONS = {
    "tests": ("GPU tests", tests_table),
    "steps": ("Training steps on a GPU", steps_table),
    "loader": ("Loader to GPU", loader_table),
    "overhead": ("Overhead on a GPU", overhead_table),
    "cifar": ("CIFAR-10 on a GPU", cifar_table),
}
"""Title and table of each part, by the name of its file."""


def mean_and_deviation(values: list[float]) -> str:
    """Return the mean and, of several values, the sample standard deviation."""
    mean = number(statistics.mean(values), 2)
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def number(value: float | None, digits: int) -> str:
    """Return a number as text, blank if it was not measured."""
    return "" if value is None else f"{value:.{digits}f}"


def line(cells: list[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def write(text: str, readme: Path) -> None:
    """Replace what stands between the markers of a file."""
    content = readme.read_text()
    before, found_begin, rest = content.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise SystemExit(f"error: {readme}: the markers {BEGIN} and {END} are missing. Add them.")
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
