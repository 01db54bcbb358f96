"""Does SMMix beat its peers on real images, and which of its parts does it?

python benchmarks/evidence.py digits [--seeds 0 1 2] [--jobs 2]
python benchmarks/evidence.py cifar10_small --data DIR [--equal-time CutMix Mixup+CutMix]
python benchmarks/evidence.py cifar10_few --data DIR
python benchmarks/evidence.py cifar10 --data DIR

Every method trains the same recipe from the same seeds (configs/digits.yaml,
configs/cifar10_small.yaml, the same on 900 images for as many steps, configs/cifar10_deit_t.yaml);
only the mixer differs. A run lies in runs/evidence/SET/METHOD/seed_S and is not trained again, so
this can be done in parts; begin in another folder where --flags change. Prints a Markdown table of
mean and sample standard deviation over seeds, and writes it with a figure to --out. Images per
second are those of the mean training step, loading included: they compare where nothing else
runs. --equal-time trains methods once more, for as many epochs as take SMMix's time by those
speeds.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from smmix_pl.plots.style import line_style, style_axes

SMMIX = ["--model.mixer", "SMMix"]
EMA = ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay", "0.99"]
METHODS: dict[str, list[str]] = {
    "none": ["--model.mixer", "NoMix"],
    "Mixup": ["--model.mixer", "Mixup"],
    "CutMix": ["--model.mixer", "CutMix"],
    "Mixup+CutMix": ["--model.mixer", "MixupCutMix"],
    "TransMix": ["--model.mixer", "TransMix"],
    "SMMix (reduced)": ["--config", "with/reduced.yaml"],
    "SMMix": SMMIX,
    "SMMix, random regions": [*SMMIX, "--model.mixer.region_choice", "random"],
    "SMMix, no fine-grained loss": [
        "--model.mixer",
        "SMMix",
        "--model.mixer.fine_grained",
        "false",
    ],
    "SMMix, no consistency loss": [*SMMIX, "--model.mixer.consistency", "false"],
}
EXPERIMENTS: dict[str, list[str]] = {
    "SMMix, a side for each image": [*SMMIX, "--model.mixer.per_sample_side", "true"],
    "SMMix, the class token's attention": [*SMMIX, "--model.attention", "class"],
    "SMMix, half the extra losses": [
        *SMMIX,
        *("--model.fine_grained_weight", "0.5", "--model.consistency_weight", "0.5"),
    ],
    "SMMix, sides to half the grid": [*SMMIX, "--model.mixer.max_side_ratio", "0.5"],
    "SMMix, soft start of 10 epochs": [*SMMIX, "--model.soft_start_epochs", "10"],
    "SMMix, soft start of 50 epochs": [*SMMIX, "--model.soft_start_epochs", "50"],
    "SMMix, no consistency loss, an earlier block's attention": [
        *SMMIX,
        *("--model.mixer.consistency", "false", "--model.guide_block", "2"),
    ],
    "SMMix, average of weights": [*SMMIX, *EMA],
    "SMMix, average of weights as_guide": [*SMMIX, *EMA, "--trainer.callbacks.as_guide", "true"],
}
"""What the paper leaves open; trained where --methods names them."""
ALL = METHODS | EXPERIMENTS
RECIPES: dict[str, list[str]] = {
    "digits": ["digits.yaml"],
    "cifar10_small": ["cifar10_small.yaml"],
    "cifar10_few": [
        "cifar10_small.yaml",
        *("--data.shots", "90", "--trainer.max_epochs", "150"),
        *("--trainer.check_val_every_n_epoch", "25"),
    ],
    "cifar10": ["cifar10_deit_t.yaml"],
}
MEASURES = {
    "top1": "top-1 (%)",
    "ece": "ECE (%)",
    "occlusion_25": "25% occlusion",
    "occlusion_50": "50% occlusion",
    "occlusion_75": "75% occlusion",
    "occlusion_auc_75": "0 to 75% occlusion",
    "images_per_second": "images/s",
}
Found = dict[str, list[dict[str, float]]]
"""Measures of each seed, by method."""


def main() -> None:
    """Train what is missing, then tell."""
    options = parse()
    place = Path("runs/evidence") / options.set
    found = run({method: ALL[method] for method in options.methods}, place, options)
    if options.equal_time:
        found |= run(longer(options.equal_time, found, place), place, options)
    text = table(found)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"evidence_{options.set}.md").write_text(text + "\n")
    figure(found, options.set).savefig(options.out / f"evidence_{options.set}.png", dpi=120)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=RECIPES)
    parser.add_argument("--data", type=Path, help="folder that holds the data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=ALL)
    parser.add_argument("--equal-time", nargs="+", default=[], choices=ALL, metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--flags", default="", help="further words for every run, in one string")
    options = parser.parse_args()
    if options.set != "digits" and not (options.data and options.data.is_dir()):
        parser.error(f"{options.set} needs its data: --data DIR; {options.data} is no folder")
    if options.set == "digits" and options.data:
        parser.error("the digits need no data; name the set that --data holds (SET=cifar10_small)")
    missing = {"SMMix", *options.equal_time} - set(options.methods)
    if options.equal_time and missing:
        parser.error(f"--equal-time compares speeds with those of {missing}: add to --methods")
    return options


def run(methods: dict[str, list[str]], place: Path, options: argparse.Namespace) -> Found:
    """Train each method with each seed, unless that has been done, and read what was found."""
    runs = [(method, seed) for seed in options.seeds for method in methods]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda one: train(*one, methods[one[0]], place, options), runs))
    return {
        method: [measures(run_folder(place, method, seed)) for seed in options.seeds]
        for method in methods
    }


def longer(methods: list[str], found: Found, place: Path) -> dict[str, list[str]]:
    """The same methods, for as many epochs as take SMMix's time."""
    [config, *_] = (place / "SMMix").glob("seed_*/config.yaml")
    epochs = yaml.safe_load(config.read_text())["trainer"]["max_epochs"]
    speed = {
        name: statistics.median(seed["images_per_second"] for seed in seeds)
        for name, seeds in found.items()
    }
    more = {method: round(epochs * speed[method] / speed["SMMix"]) for method in methods}
    return {
        f"{method}, {count} epochs": [*ALL[method], "--trainer.max_epochs", str(count)]
        for method, count in more.items()
    }


def run_folder(place: Path, method: str, seed: int) -> Path:
    """Where a run lies."""
    return place / method.replace(" ", "_").replace(",", "") / f"seed_{seed}"


def train(
    method: str, seed: int, flags: list[str], place: Path, options: argparse.Namespace
) -> None:
    """Train and test one run, unless that has been done."""
    folder = run_folder(place, method, seed)
    if (folder / "results.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    command = [
        *(sys.executable, "-m", "smmix_pl", "fit", "--config", *RECIPES[options.set]),
        *flags,
        *("--seed_everything", str(seed), "--trainer.logger", json.dumps(logger)),
        *("--test_after_fit", "true", "--trainer.enable_progress_bar", "false"),
        *(["--data.root", str(options.data)] if options.data else []),
        *options.flags.split(),
    ]
    threads = {"OMP_NUM_THREADS": "1"} if options.jobs > 1 else {}
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | threads)
    print(f"{method}, seed {seed}: {'done' if not done.returncode else 'FAILED'}", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"error: {method} at seed {seed} failed; see {folder / 'log.txt'}")


def measures(folder: Path) -> dict[str, float]:
    """What one run found: shares in percent, and its speed."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())["metrics"]
    with (folder / "metrics.csv").open() as file:
        speeds = [row["images_per_second"] for row in csv.DictReader(file)]
    # of the mean step, as a mixer with two branches has steps of two kinds
    speed = statistics.harmonic_mean([float(value) for value in speeds if value])
    shares = {name: 100 * found[name]["value"] for name in MEASURES if name in found}
    return shares | {"images_per_second": speed}


def table(found: Found) -> str:
    """Markdown: mean and spread over seeds."""
    lines = [["method", *MEASURES.values()], ["---"] * (1 + len(MEASURES))]
    for method, seeds in found.items():
        lines.append([method, *(cell([seed[name] for seed in seeds]) for name in MEASURES)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: list[float]) -> str:
    """Mean, and sample standard deviation where there are several."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def figure(found: Found, name: str) -> Figure:
    """Accuracy on whole and on half occluded images, a dot a seed."""
    drawn = Figure(figsize=(9.6, 4.8), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    labels = {"top1": "top-1 (%)", "occlusion_50": "top-1 (%) at 50% occlusion"}
    for axes, (measure, label) in zip(panels, labels.items(), strict=True):
        style_axes(axes)
        for row, seeds in enumerate(found.values()):
            values = [seed[measure] for seed in seeds]
            style = line_style(row)
            axes.plot(values, [row] * len(values), "o", color=style["color"], alpha=0.5)
            axes.plot(statistics.mean(values), row, "|", color=style["color"], ms=22, mew=2.5)
        axes.set_yticks(range(len(found)), list(found))
        axes.set_xlabel(label)
    panels[0].invert_yaxis()
    drawn.suptitle(f"{name}: every seed, and the mean of each method")
    return drawn


if __name__ == "__main__":
    main()
