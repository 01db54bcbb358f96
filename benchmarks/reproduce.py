"""Train one row of the published results table, and print our result with it.

    python benchmarks/reproduce.py TARGET --data DIR [--variant authors|reduced] [--seeds 0 1 2]
    python benchmarks/reproduce.py TARGET --smoke      # generated data, minutes: checks the target
    python benchmarks/reproduce.py --table             # all rows measured so far, as Markdown

Runs are stored in runs/bench/TARGET-VARIANT/seed_S. Interrupted runs resume. All available devices
are used: the global batch is that of the recipe, and gradients accumulate as needed. Rows are
appended to benchmarks/results.csv, except those of smoke runs.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import smoke_data
import torch
import yaml

from smmix_pl.reporting.metric_names import metric_name
from smmix_pl.reporting.published import DEIT_S, PUBLISHED, REDUCED, VIT_B, VIT_L, VIT_S, Published
from smmix_pl.runs.results import read_results

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
COLUMNS = (
    *("target", "variant", "metric", "published", "ours", "spread", "seeds"),
    *("differences", "config", "runs", "date", "commit"),
)
PUBLISHED_DIFFERENCES = (
    "published with OpenMixup's code, RandAugment, and precision; best epoch selected on the test "
    "set in both, there among the last 10, here among all"
)


@dataclass(frozen=True)
class Target:
    """One row to reproduce.

    Attributes:
        configs: Shipped configs; later ones override earlier ones.
        data: Class name of the dataset in `smmix_pl.data`.
        batch: Global batch size of the recipe.
        published: Its rows in `smmix_pl.reporting.published`.
        differences: Known differences from the published protocol.
    """

    configs: tuple[str, ...]
    data: str
    batch: int
    published: list[Published]
    differences: list[str] = field(default_factory=list)

    def values(self) -> list[tuple[str, float]]:
        """Return the published numbers as pairs of metric key and value in [0, 1].

        Accuracy at 0% occlusion is `top1`. One metric may have been published twice.
        """
        found: list[tuple[str, float]] = []
        for row in self.published:
            if row.occlusion:
                found.append(("top1", row.occlusion[0] / 100))
            found += row.values().items()
        return found


def published(model: str, data: str, note: str = "", method: str = REDUCED) -> list[Published]:
    """Return the rows of `PUBLISHED` on a model and a dataset."""
    key = (method, model, data, note)
    return [row for row in PUBLISHED if (row.method, row.model, row.data, row.note) == key]


CIFAR100 = ("deit_s.yaml", "data/cifar100_224.yaml", "bench/cifar100.yaml")
WEIGHTS = (
    "starts from timm's default ImageNet weights of this model; the published ones are unknown"
)


def fine_tuning(overlay: str, data: str) -> Target:
    """Return the target of ViT-B/16 on a fine-grained dataset."""
    configs = ("deit_s.yaml", f"data/{overlay}.yaml", "bench/finetune.yaml")
    return Target(configs, data, 16, published(VIT_B, data), [WEIGHTS])


TARGETS = {
    "cifar100": Target(CIFAR100, "CIFAR100", 100, published(DEIT_S, "CIFAR100", "600 epochs")),
    "cifar100-occlusion": Target(
        (*CIFAR100, "bench/cifar100_occlusion.yaml"),
        "CIFAR100",
        100,
        published(VIT_S, "CIFAR100"),
        ["the published schedule is inferred to be 600 epochs"],
    ),
    "cifar100-ece": Target(
        (*CIFAR100, "bench/cifar100_ece.yaml"), "CIFAR100", 100, published(VIT_L, "CIFAR100")
    ),
    "cars": fine_tuning("cars", "StanfordCars"),
    "aircraft": fine_tuning("aircraft", "Aircraft"),
    "cub": fine_tuning("cub", "CUB"),
    "imagenet": Target(
        ("deit_s.yaml", "data/imagenet.yaml", "bench/imagenet.yaml"),
        "ImageNet",
        1024,
        [row for row in published(DEIT_S, "ImageNet") if row.occlusion],
    ),
}


def main() -> None:
    """Run a target, or print the table."""
    options = parse()
    if options.table:
        print(table(read_rows()))
        return
    target = TARGETS[options.target]
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            options.data = smoke_data.WRITERS[target.data](Path(scratch) / "data")
            options.out = Path(scratch) / "runs"
        folder = options.out / f"{options.target}-{options.variant}"
        runs = [run(target, options, folder / f"seed_{seed}", seed) for seed in options.seeds]
        rows = result_rows(options, target, folder, [read_results(one) for one in runs])
    print(table(rows))
    if not options.smoke:
        append(rows)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--data", type=Path, help="folder of the dataset")
    parser.add_argument("--variant", choices=("authors", "reduced"), default="authors")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the runs")
    parser.add_argument("--max-batch", type=int, default=256, help="images per device and step")
    parser.add_argument("--smoke", action="store_true", help="run a few steps on generated data")
    parser.add_argument("--table", action="store_true", help="print all rows measured so far")
    options = parser.parse_args()
    if not options.table and not options.target:
        parser.error(f"TARGET: missing. Use one of {', '.join(TARGETS)}.")
    if options.target and not options.smoke and not (options.data and options.data.is_dir()):
        parser.error(
            f"--data={options.data}: not a folder. Pass the folder that holds the dataset of "
            f"{options.target} (make: DATA=DIR), or --smoke for generated data (make: SMOKE=1)."
        )
    return options


def run(target: Target, options: argparse.Namespace, folder: Path, seed: int) -> Path:
    """Train and test one seed unless that is done, and return the folder with the results."""
    if (folder / "test" / "results.json").exists():
        return folder / "test"
    settings = run_settings(target, options, folder, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    names = (*configs_of(target, options.variant), folder / "run.yaml")
    configs = [word for name in names for word in ("--config", str(name))]
    flags = smoke_data.flags(target.data) if options.smoke else []
    smmix("fit", *configs, *flags, "--ckpt_path", "last")  # starts if there is no checkpoint
    overlay = ["--config", "with/published.yaml", "--trainer.logger.version", "test"]
    best = folder / "checkpoints/best.ckpt"
    smmix("test", *configs, *overlay, *flags, "--ckpt_path", str(best))
    return folder / "test"


def configs_of(target: Target, variant: str) -> list[str]:
    """Return the recipe and its overlays."""
    return [*target.configs, *(["with/reduced.yaml"] if variant == "reduced" else [])]


def run_settings(
    target: Target, options: argparse.Namespace, folder: Path, seed: int
) -> dict[str, Any]:
    """Return the config of one run: seed, data, devices, and folder."""
    devices = usable_devices(target.batch, torch.cuda.device_count())
    batch, accumulate = split_batch(target.batch, devices, options.max_batch)
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    return {
        "seed_everything": seed,
        "data": {"init_args": {"root": str(options.data), "batch_size": batch}},
        "trainer": {
            "devices": devices,
            "accumulate_grad_batches": accumulate,
            "logger": logger,
        },
    }


def usable_devices(batch: int, available: int) -> int:
    """Return the largest number of devices that split the global batch evenly, at least 1."""
    devices = max(count for count in range(1, max(1, available) + 1) if batch % count == 0)
    if devices < available:
        print(f"using {devices} of {available} devices, so that {batch} images split evenly")
    return devices


def split_batch(batch: int, devices: int, limit: int) -> tuple[int, int]:
    """Return images per device and step, and steps to accumulate.

    Args:
        batch: Global batch size, a multiple of `devices`.
        devices: Number of devices.
        limit: Maximum number of images per device and step, at least 1.
    """
    return next(
        (batch // (devices * accumulate), accumulate)
        for accumulate in range(1, batch + 1)
        if batch % (devices * accumulate) == 0 and batch // (devices * accumulate) <= limit
    )


def smmix(*words: str) -> None:
    """Run the `smmix` program, and exit with its status if it fails."""
    paths = os.pathsep.join(path for path in (str(HERE), os.environ.get("PYTHONPATH")) if path)
    environment = os.environ | {"PYTHONPATH": paths, "SMMIX_PACKAGES": "smoke_data"}
    done = subprocess.run([sys.executable, "-m", "smmix_pl", *words], check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)


def result_rows(
    options: argparse.Namespace, target: Target, folder: Path, found: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Return one row per published number."""
    differences = [PUBLISHED_DIFFERENCES, *target.differences]
    if options.variant == "authors":
        differences.append("published with the reduced SMMix")
    common = {
        "target": options.target,
        "variant": options.variant,
        "seeds": " ".join(map(str, options.seeds)),
        "differences": "; ".join(differences),
        "config": " ".join(configs_of(target, options.variant)),
        "runs": str(folder),
        "date": date.today().isoformat(),
        "commit": (found[0]["run"]["git_commit"] or "")[:10],
    }
    rows = []
    for metric, value in target.values():
        ours = [100 * one["metrics"][metric]["value"] for one in found]
        spread = f"{statistics.stdev(ours):.2f}" if len(ours) > 1 else ""
        numbers = {"published": f"{100 * value:.2f}", "ours": f"{statistics.mean(ours):.2f}"}
        rows.append(common | numbers | {"metric": metric, "spread": spread})
    return rows


def append(rows: list[dict[str, str]]) -> None:
    """Add rows to results.csv. They replace earlier rows of the same runs."""

    def key(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[name] for name in ("target", "variant", "metric", "seeds", "runs"))

    new = set(map(key, rows))
    kept = [row for row in read_rows() if key(row) not in new] if RESULTS.exists() else []
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, *rows])


def read_rows() -> list[dict[str, str]]:
    """Return all rows measured so far."""
    if not RESULTS.exists():
        raise SystemExit(
            f"error: {RESULTS}: no such file. Run a target first, such as "
            "`make bench-cifar100 DATA=DIR`."
        )
    with RESULTS.open() as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """Return rows as a Markdown table."""
    lines = [
        "| target | variant | metric | published | ours | seeds | differences | config | runs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = f"{row['ours']} ± {row['spread']}" if row["spread"] else row["ours"]
        cells = (row["target"], row["variant"], metric_name(row["metric"]), row["published"], ours)
        rest = (row["seeds"], row["differences"], row["config"], row["runs"])
        lines.append(f"| {' | '.join(cells + rest)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
