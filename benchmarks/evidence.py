"""Does SMMix beat its peers on real images, and which of its parts contribute?

    python benchmarks/evidence.py digits [--seeds 0 1 2] [--jobs 2]
    python benchmarks/evidence.py cifar10_small --data DIR [--equal-time CutMix Mixup+CutMix]
    python benchmarks/evidence.py cifar10_few --data DIR
    python benchmarks/evidence.py cifar10 --data DIR
    python benchmarks/evidence.py imagenette_5 --data DIR [--seeds 0 1 2 3 4]   # or _10, _20
        [--flags "--model.pretrained false --model.init_from FILE"]

Trains every method of a list in configs/evidence with the same recipe and seeds, and prints the
mean and sample standard deviation over seeds as a Markdown table. The table and its figure are also
written to `--out`; `--redraw TABLE` draws the figure alone. Training images per class are those of
`data.shots`; on Imagenette, each seed chooses others, and all methods of a seed use the same.

Runs are stored in runs/evidence/SET/METHOD/seed_S. `smmix compare A=runs/evidence/SET/A ...` prints
differences of methods, paired by seed, with their intervals. Finished runs are not repeated and
interrupted runs resume, so the methods can be trained in parts. Use another working directory for
other `--flags`. Images/s is the speed of the mean training step including data loading. It is
comparable only if nothing else runs on the machine. `--equal-time` trains methods again, for as
many epochs as fit into SMMix's training time at the measured speeds.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smmix_pl.plots.style import COLORS, add_note, paper_style, style_axes
from smmix_pl.runs.results import read_results

Overrides = Mapping[str, Any]
"""Values of command line options."""
METHODS = Path(__file__).parents[1] / "configs" / "evidence"


class Study(NamedTuple):
    """What a set compares.

    Args:
        methods: Name of the list in configs/evidence.
        options: Options of all runs, in which `{seed}` is the seed of a run.
    """

    methods: str
    options: Overrides


SETS = {
    "digits": Study("mixers", {"config": "digits.yaml"}),
    "cifar10_small": Study("mixers", {"config": "cifar10_small.yaml"}),
    "cifar10_few": Study(  # as many steps, on 900 images
        "mixers",
        {
            "config": "cifar10_small.yaml",
            "data.shots": 90,
            "trainer.max_epochs": 150,
            "trainer.check_val_every_n_epoch": 25,
        },
    ),
    "cifar10": Study("mixers", {"config": "cifar10_deit_t.yaml"}),
}
for shots, epochs in ((5, 50), (10, 25), (20, 13)):  # 100 steps, 104 with 20 images
    SETS[f"imagenette_{shots}"] = Study(
        "imagenette",
        {
            "config": "finetune_vit_s.yaml",
            "data.shots": shots,
            "data.split_seed": "{seed}",
            "trainer.max_epochs": epochs,
            "trainer.check_val_every_n_epoch": epochs,
        },
    )
SETS["photo_to_sketch"] = Study(  # domains of PACS
    "imagenette",
    {
        "config": "finetune_vit_s.yaml",
        "data": "smmix_pl.data.Folder",
        "data.train": "photo",
        "data.val": "null",
        "data.test": "sketch",
        "data.split_seed": "{seed}",
        "trainer.max_epochs": 50,
        "trainer.check_val_every_n_epoch": 50,
    },
)
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
Measured = dict[str, list[dict[str, float]]]
"""Measures of each seed, by method."""


def main() -> None:
    """Train the missing runs, and write the table and the figure."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    text = options.redraw.read_text() if options.redraw else measure(options)
    note = f"{options.set}: mean ± standard deviation over {len(options.seeds)} seeds; dotted: none"
    drawn = figure(read_table(text), note)
    drawn.savefig(options.out / f"evidence_{options.set}.png")


def measure(options: argparse.Namespace) -> str:
    """Train the missing runs, and print, write, and return the table."""
    folder = Path("runs/evidence") / options.set
    known = options.known
    measured = train_all({name: known[name] for name in options.methods}, folder, options)
    if options.equal_time:
        longer = equal_time({name: known[name] for name in options.equal_time}, measured, folder)
        measured |= train_all(longer, folder, options)
    text = table(measured)
    print(text)
    (options.out / f"evidence_{options.set}.md").write_text(text + "\n")
    return text


def parse() -> argparse.Namespace:
    """Parse the command line. `known` becomes the options of all methods, by name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", type=Path, help="folder of the dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="of a list in configs/evidence"
    )
    parser.add_argument("--equal-time", nargs="+", default=[], metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, with one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument(
        "--redraw", type=Path, metavar="TABLE", help="draw the figure of an earlier table only"
    )
    parser.add_argument("--flags", default="", help="further options of all runs, as one string")
    options = parser.parse_args()
    listed = METHODS / f"{SETS[options.set].methods}.yaml"
    content = yaml.safe_load(listed.read_text())
    options.known = content["methods"] | content["experiments"]
    options.methods = options.methods or list(content["methods"])
    if options.redraw:
        return options
    unknown = {*options.methods, *options.equal_time} - set(options.known)
    if unknown:
        parser.error(f"--methods: {listed} has no {', '.join(sorted(unknown))}.")
    if options.set != "digits" and not (options.data and options.data.is_dir()):
        parser.error(
            f"--data={options.data}: not a folder. Pass the folder that holds the dataset of "
            f"{options.set}."
        )
    if options.set == "digits" and options.data:
        parser.error(f"--data={options.data}: digits needs no data. Remove it or name another set.")
    missing = {"SMMix", *options.equal_time} - set(options.methods)
    if options.equal_time and missing:
        names = ", ".join(sorted(missing))
        parser.error(f"--equal-time: needs the speed of {names}. Add it to --methods.")
    return options


def train_all(
    methods: Mapping[str, Overrides], folder: Path, options: argparse.Namespace
) -> Measured:
    """Train every method with every seed unless that is done, and return the measures."""
    runs = [(method, seed) for seed in options.seeds for method in methods]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: train(*run, methods[run[0]], folder, options), runs))
    return {
        method: [read_measures(run_folder(folder, method, seed)) for seed in options.seeds]
        for method in methods
    }


def equal_time(
    methods: Mapping[str, Overrides], measured: Measured, folder: Path
) -> dict[str, Overrides]:
    """Return the methods with as many epochs as fit into SMMix's training time."""
    [config, *_] = (folder / "SMMix").glob("seed_*/config.yaml")
    epochs = yaml.safe_load(config.read_text())["trainer"]["max_epochs"]
    speed = {
        name: statistics.median(seed["images_per_second"] for seed in seeds)
        for name, seeds in measured.items()
    }
    longer: dict[str, Overrides] = {}
    for method, overrides in methods.items():
        count = round(epochs * speed[method] / speed["SMMix"])
        longer[f"{method}, {count} epochs"] = {**overrides, "trainer.max_epochs": count}
    return longer


def run_folder(folder: Path, method: str, seed: int) -> Path:
    """Return the folder of one run."""
    return folder / method.replace(" ", "_").replace(",", "") / f"seed_{seed}"


def train(
    method: str, seed: int, overrides: Overrides, folder: Path, options: argparse.Namespace
) -> None:
    """Train and test one run, unless that is done."""
    run = run_folder(folder, method, seed)
    if (run / "results.json").exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(run), "name": "", "version": ""},
    }
    command = [
        *(sys.executable, "-m", "smmix_pl", "fit"),
        *(word.replace("{seed}", str(seed)) for word in as_words(SETS[options.set].options)),
        *as_words(overrides),
        *("--seed_everything", str(seed), "--trainer.logger", json.dumps(logger)),
        *("--test_after_fit", "true", "--trainer.enable_progress_bar", "false"),
        *(["--data.root", str(options.data)] if options.data else []),
        *options.flags.split(),
    ]
    threads = {"OMP_NUM_THREADS": "1"} if options.jobs > 1 else {}
    with (run / "log.txt").open("a") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | threads)
    print(f"{method}, seed {seed}: {'FAILED' if done.returncode else 'done'}", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"error: {method}, seed {seed}: training failed. See {run / 'log.txt'}.")


def as_words(overrides: Overrides) -> list[str]:
    """Return overrides as words of a command line."""
    return [f"--{option}={value}" for option, value in overrides.items()]


def read_measures(run: Path) -> dict[str, float]:
    """Return the test metrics of one run, fractions in percent, and its speed in images/s."""
    metrics = read_results(run)["metrics"]
    with (run / "metrics.csv").open() as file:
        speeds = [row["images_per_second"] for row in csv.DictReader(file)]
    # The speed of the mean step, because mixers with two branches have two kinds of steps
    speed = statistics.harmonic_mean([float(value) for value in speeds if value])
    found = {name: metrics[name]["value"] for name in MEASURES if name in metrics}
    percent = {name: value if name in PLAIN else 100 * value for name, value in found.items()}
    return percent | {"images_per_second": speed}


def table(measured: Measured) -> str:
    """Return a Markdown table of means and standard deviations over seeds."""
    every_run = [seed for seeds in measured.values() for seed in seeds]
    columns = [name for name in MEASURES if all(name in run for run in every_run)]
    lines = [["method", *(MEASURES[name] for name in columns)], ["---"] * (1 + len(columns))]
    for method, seeds in measured.items():
        lines.append(
            [method, *(mean_and_spread([seed[name] for seed in seeds]) for name in columns)]
        )
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


if __name__ == "__main__":
    main()
