"""Is a complete training run as fast as timm's own train.py? Prints images/s of whole programs.

    python benchmarks/end_to_end.py TRAIN_PY FOLDER [--steps 100] [--batch 32] [--workers 1]
        [--rounds 2] [--model deit_tiny_patch16_224] [--size 224] [--compile]
        [--mixers CutMix SMMix] [--cache device]

TRAIN_PY is the script at the root of timm's repository. FOLDER holds class folders of images, which
are linked as often as the steps need. Each program trains in a process of its own, in turn, with
the flags of the DeiT recipe: AdamW, RandAugment, random erasing, label smoothing, stochastic depth;
no validation, and a line in the log every 10 steps. timm mixes with CutMix. Speeds come from the
times that each program logs, without its first 20 steps. Values are medians (range) over rounds.
`--cache` is our `data.cache`, for images as small as CIFAR's; timm's script has none.
"""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from timing import conditions, interleave, median_and_range, median_ratio

LOG_EVERY = 10
EXCLUDED = 20
"""First steps, in which memory is allocated, workers start, and torch compiles."""
START_TIMM = """
import runpy, sys
from timm.data import auto_augment
from smmix_pl.data.augment import posterize
for name, operation in auto_augment.NAME_TO_OP.items():
    if operation is auto_augment.posterize:
        auto_augment.NAME_TO_OP[name] = posterize
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Starts timm's script, whose `posterize` fails with Pillow 13, with a fixed one."""
TIMM_LINE = re.compile(r"Train: 0 \[\s*(\d+)/.*\(([\d.]+)s,")


def main() -> None:
    """Run the programs in turn and print their speeds."""
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        link_images(options.folder, folder / "images", options.steps * options.batch)
        actions = {"timm, CutMix": partial(timm_speed, options, folder)}
        for mixer in options.mixers:
            actions[f"smmix fit, {mixer}"] = partial(our_speed, options, folder, mixer)
        speeds = interleave(actions, options.rounds, warmup=0)
    print(f"{options.model}, {options.size} pixels, {options.workers} workers; {options.steps}")
    print(f"steps, {'compiled' if options.compile else 'eager'}; {conditions(options)}")
    timm, *_ = speeds.values()
    for name, values in speeds.items():
        ratio = median_ratio(values, timm)
        print(f"{name}: {median_and_range(values)} images/s, {ratio:.3f} of timm's")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train_py", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--mixers", nargs="+", default=["CutMix", "SMMix"])
    parser.add_argument("--cache", choices=("host", "device"))
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def link_images(source: Path, target: Path, needed: int) -> None:
    """Link images of class folders, each as often as needed, into `train`, and once into `val`."""
    files = sorted(path.resolve() for path in source.glob("*/*") if path.is_file())
    for split, copies in (("train", -(-needed // len(files))), ("val", 1)):
        for file in files:
            folder = target / split / file.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            for copy in range(copies):
                (folder / f"{copy}_{file.name}").symlink_to(file)


def timm_speed(options: argparse.Namespace, folder: Path) -> float:
    """Return the images/s of timm's script."""
    classes = len(list((folder / "images/train").iterdir()))
    words = f"""--data-dir {folder}/images --train-split train --val-split val
    --model {options.model} --img-size {options.size} --num-classes {classes}
    --batch-size {options.batch} --workers {options.workers} --epochs 1 --warmup-epochs 0
    --opt adamw --lr 1e-4 --weight-decay 0.05 --drop-path 0.1
    --aa rand-m9-mstd0.5-inc1 --color-jitter 0.3
    --train-interpolation bicubic --reprob 0.25 --remode pixel --mixup 0 --cutmix 1.0
    --smoothing 0.1 --log-interval {LOG_EVERY} --val-interval 2 --device {options.device}
    --output {folder}/timm""".split()
    words += ["--model-kwargs", f"img_size={options.size}"] if options.size != 224 else []
    words += ["--amp", "--amp-dtype", "bfloat16"] if options.precision == "bf16" else []
    words += ["--torchcompile"] if options.compile else []
    script = str(options.train_py.resolve())
    done = run([sys.executable, "-c", START_TIMM, script, *words], folder)
    means = {int(step) + 1: float(mean) for step, mean in TIMM_LINE.findall(done)}
    first, last = min(step for step in means if step > EXCLUDED), max(means)
    seconds = last * means[last] - first * means[first]
    return (last - first) * options.batch / seconds


def our_speed(options: argparse.Namespace, folder: Path, mixer: str) -> float:
    """Return the images/s of `smmix fit`."""
    output = Path(tempfile.mkdtemp(dir=folder))
    words = f"""fit --config deit_t.yaml --data smmix_pl.data.Folder --data.root {folder}/images
    --data.image_size {options.size} --data.batch_size {options.batch}
    --data.num_workers {options.workers} --model.backbone {options.model} --model.mixer {mixer}
    --model.compile {str(options.compile).lower()} --trainer.max_steps {options.steps}
    --trainer.limit_val_batches 0 --trainer.log_every_n_steps {LOG_EVERY} --name run
    --trainer.accelerator {options.device}
    --trainer.precision {"bf16-mixed" if options.precision == "bf16" else "32-true"}""".split()
    words += ["--data.cache", options.cache] if options.cache else []
    run([sys.executable, "-m", "smmix_pl", *words], output)
    with (output / "runs/run/version_0/metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["images_per_second"]]
    # each value is the mean over the steps since the one before
    rates = [float(row["images_per_second"]) for row in logged if int(row["step"]) >= EXCLUDED]
    return statistics.harmonic_mean(rates)


def run(words: list[str], folder: Path) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])
    return done.stdout


if __name__ == "__main__":
    main()
