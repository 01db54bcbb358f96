"""Does SMMix beat its peers on real images, and which of its parts contribute?

    python benchmarks/evidence.py digits [--seeds 0 1 2] [--jobs 2]
    python benchmarks/evidence.py cifar10_small --data DIR [--equal-time CutMix Mixup+CutMix]
    python benchmarks/evidence.py cifar10_few --data DIR
    python benchmarks/evidence.py cifar10 --data DIR
    python benchmarks/evidence.py imagenette_10 --data DIR [--seeds 0 1 2 3 4]  # _5, _20, _10_long
        [--flags "--model.pretrained false --model.init_from FILE"]

Trains every method of a list in configs/evidence with the same recipe and seeds, and prints the
mean and sample standard deviation over seeds as a Markdown table, and with `--baseline METHOD` the
differences from a method, paired by seed. `--out` receives the measures of each run
(evidence_SET.csv) and a figure of all methods listed there; `--redraw TABLE` draws that of a table.
Training images per class are those of `data.shots`; on Imagenette and PACS, each seed chooses
others, and all methods of a seed use the same.

Runs are stored in runs/evidence/SET/METHOD/seed_S, where `smmix compare` reads them. Finished runs,
also those that evidence_SET.csv lists, are not repeated, and interrupted runs resume, so the
methods can be trained in parts. Use another working directory and another `--out` for other
`--flags`. Checkpoints of finished runs are deleted. Images/s is the speed of the mean training step
including data loading. It is comparable only if nothing else runs on the machine. `--equal-time`
trains methods again, for as many epochs as fit into SMMix's training time at the measured speeds.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from evidence_tables import (
    MEASURES,
    PLAIN,
    Measured,
    add_runs,
    differences,
    figure,
    read_runs,
    read_table,
    table,
)

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
# Images per class and epochs: 100 steps (104 with 20 images), and 400
for name, shots, epochs in (("5", 5, 50), ("10", 10, 25), ("20", 20, 13), ("10_long", 10, 100)):
    SETS[f"imagenette_{name}"] = Study(
        "imagenette",
        {
            "config": "finetune_vit_s.yaml",
            "data.shots": shots,
            "data.split_seed": "{seed}",
            "trainer.max_epochs": epochs,
            "trainer.check_val_every_n_epoch": epochs,
        },
    )
for domain in ("art_painting", "sketch"):  # of PACS, trained on its photographs
    SETS[f"photo_to_{domain}"] = Study(
        "imagenette",
        {
            "config": "finetune_vit_s.yaml",
            "data": "smmix_pl.data.Folder",
            "data.train": "photo",
            "data.val": "null",
            "data.test": domain,
            "data.split_seed": "{seed}",
            "trainer.max_epochs": 50,
            "trainer.check_val_every_n_epoch": 50,
        },
    )


def main() -> None:
    """Train the missing runs, print their table, and draw the figure of all."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.redraw:
        measure(options)
    text = options.redraw.read_text() if options.redraw else table(read_runs(options.listed_runs))
    note = f"{options.set}: mean ± standard deviation over seeds; dotted: none"
    figure(read_table(text), note).savefig(options.out / f"evidence_{options.set}.png")


def measure(options: argparse.Namespace) -> None:
    """Train the missing runs, list their measures, and print the table."""
    folder = Path("runs/evidence") / options.set
    known = options.known
    measured = train_all({name: known[name] for name in options.methods}, folder, options)
    if options.equal_time:
        longer = equal_time({name: known[name] for name in options.equal_time}, measured, folder)
        measured |= train_all(longer, folder, options)
    add_runs(options.listed_runs, measured)
    print(table(measured))
    if options.baseline:
        print("", differences(measured, options.baseline), sep="\n")


def parse() -> argparse.Namespace:
    """Parse the command line.

    `known` becomes the options of all methods, by name, and `listed_runs` the file of measures.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", type=Path, help="folder of the dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="of a list in configs/evidence"
    )
    parser.add_argument("--baseline", metavar="METHOD", help="show differences from it")
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
    options.listed_runs = options.out / f"evidence_{options.set}.csv"
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
    if options.baseline not in (None, *options.methods):
        parser.error(f"--baseline={options.baseline}: not in --methods. Add it there.")
    missing = {"SMMix", *options.equal_time} - set(options.methods)
    if options.equal_time and missing:
        names = ", ".join(sorted(missing))
        parser.error(f"--equal-time: needs the speed of {names}. Add it to --methods.")
    return options


def train_all(
    methods: Mapping[str, Overrides], folder: Path, options: argparse.Namespace
) -> Measured:
    """Train every method with every seed unless that is done, and return the measures."""
    found = {name: runs for name, runs in read_runs(options.listed_runs).items() if name in methods}
    missing: list[tuple[str, int]] = [
        (method, seed)
        for seed in options.seeds
        for method in methods
        if seed not in found.get(method, {})
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: train(*run, methods[run[0]], folder, options), missing))
    for method, seed in missing:
        found.setdefault(method, {})[seed] = read_measures(run_folder(folder, method, seed))
    return {method: {seed: found[method][seed] for seed in options.seeds} for method in methods}


def equal_time(
    methods: Mapping[str, Overrides], measured: Measured, folder: Path
) -> dict[str, Overrides]:
    """Return the methods with as many epochs as fit into SMMix's training time."""
    [config, *_] = (folder / "SMMix").glob("seed_*/config.yaml")
    epochs = yaml.safe_load(config.read_text())["trainer"]["max_epochs"]
    speed = {
        name: statistics.median(run["images_per_second"] for run in runs.values())
        for name, runs in measured.items()
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
    shutil.rmtree(run / "checkpoints")


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


if __name__ == "__main__":
    main()
