"""Time the input pipeline that feeds the GPU: our loader and timm's, on the same photographs.

Part 3 of benchmarks/gpu.sh. Writes OUT/loader.json. Both loaders decode, augment, and collate with
one worker per CPU core, copy each batch to the GPU, and normalize it there; ours also with
augmentation on the GPU. Epochs take turns. The
photographs in CARRY/photos are repeated until an epoch has enough of them. If OUT/steps.json
exists, the throughput is also given as a fraction of what a DeiT-S training step consumes.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from gpu_common import PartResults, common_parser, cpu_cores, parse, time_left
from gpu_steps import AS_TRAINED, FULL
from loader_speed import RECIPE, Epoch, generate, our_epochs, timm_epochs
from timing import median_ratio

CLASS_FOLDERS = 8


def main() -> None:
    """Measure both loaders and print the throughput."""
    options = parse(common_parser(__doc__, seconds=60))
    workers = 1 if options.smoke else cpu_cores()
    batch, images = (8, 16) if options.smoke else (256, 2048 * workers)
    results = PartResults(
        options,
        "loader",
        workers=workers,
        batch=batch,
        images=images,
        augmentation=RECIPE.auto_augment,
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        photos = find_photos(options, Path(scratch))
        if not photos:
            results.skip(f"no JPEG photographs in {options.carry / 'photos'}")
        results.content["settings"]["photographs"] = len(photos)
        folder = repeat(photos, images, Path(scratch) / "epoch")
        device = torch.device(options.device)
        loaders = {
            "timm": timm_epochs(folder, workers, device, batch),
            "ours": our_epochs(folder, workers, device, batch),
            "ours, augmented on the device": our_epochs(
                folder, workers, device, batch, augment_on="device"
            ),
        }
        speeds = measure(loaders, options)
    step_speed = training_speed(options.out / "steps.json")
    for name, values in speeds.items():
        speed = statistics.median(values)
        results.add(
            loader=name,
            images_per_second=speed,
            images_per_second_range=[min(values), max(values)],
            over_timm=median_ratio(values, speeds["timm"]),
            over_training_step=speed / step_speed if step_speed else None,
            rounds=len(values),
        )
        print(f"{name}: {speed:.0f} images/s with {workers} workers", flush=True)
    results.finish()


def find_photos(options: argparse.Namespace, scratch: Path) -> list[Path]:
    """Return the carried photographs; the smoke run generates some."""
    if options.smoke:
        (scratch / "generated").mkdir()
        return sorted(generate(scratch / "generated", images=6).rglob("*.jpg"))
    files = (options.carry / "photos").rglob("*")
    return sorted(file for file in files if file.suffix.lower() in (".jpg", ".jpeg"))


def repeat(photos: list[Path], images: int, folder: Path) -> Path:
    """Fill class folders with links to copies of the photographs, repeated in order."""
    originals = folder.parent / "originals"
    originals.mkdir()
    copies = [
        Path(shutil.copy(photo, originals / f"{index}.jpg")) for index, photo in enumerate(photos)
    ]
    for label in range(CLASS_FOLDERS):
        (folder / f"class{label}").mkdir(parents=True)
    for index, photo in zip(range(images), itertools.cycle(copies), strict=False):
        os.link(photo, folder / f"class{index % CLASS_FOLDERS}" / f"{index}.jpg")
    return folder


def measure(loaders: dict[str, Epoch], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return images per second by loader, for as many rounds as the time limit allows."""
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for index in range(2 if options.smoke else 6):
        start = time.perf_counter()
        for name, epoch in loaders.items():
            speed = epoch_speed(epoch, options.device)
            if index:  # the first epoch starts the workers
                speeds[name].append(speed)
        if index and time_left(options) < 1.5 * (time.perf_counter() - start):
            break
    return speeds


def epoch_speed(epoch: Epoch, device: str) -> float:
    """Return the images per second of one epoch, copies to the device included."""
    start = time.perf_counter()
    images = sum(len(batch[0]) for batch in epoch())
    if device == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def training_speed(steps: Path) -> float | None:
    """Return the highest images per second of an SMMix training step of DeiT-S, if measured."""
    if not steps.exists():
        return None
    deit_s = next(iter(FULL.models))
    rows = json.loads(steps.read_text())["results"]
    speeds = [
        row["images_per_second"]
        for row in rows
        if (row["model"], row["variant"]) == (deit_s, AS_TRAINED)
    ]
    return max(speeds, default=None)


if __name__ == "__main__":
    main()
