"""Is our loader faster than timm's? Images/s of both with the ImageNet recipe, in one run.

python benchmarks/loading.py [FOLDER] [--workers 0] [--rounds 7] [--cache]

FOLDER holds class folders of JPEGs; without one, 500 x 375 JPEGs are generated. Both decode,
augment, collate and normalize the same files, in turn, on one torch thread. With 0 workers, images
per second of CPU time are told, which other programs on the machine disturb little: this is the
speed of one core. With workers it is wall-clock time. The first round of each is not counted;
medians are. The last lines compare pixels: how far our crop is from timm's at the same place.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from timm.data import auto_augment, create_dataset, create_loader
from timm.data.transforms import RandomResizedCropAndInterpolation

from smmix_pl.data import Folder, TrainTransform
from smmix_pl.data.augment import posterize
from smmix_pl.data.crop import RandomResizedCrop

BATCH = 64
RECIPE = TrainTransform()


def main() -> None:
    """Measure and print a table."""
    options = parse()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or generate(Path(scratch))
        epochs = {
            "timm": timm_epochs(folder, options.workers, device),
            "ours": our_epochs(folder, options, device),
        }
        speeds = interleave(epochs, options.rounds, cpu_time=options.workers == 0)
        print(f"{folder}, {options.workers} workers, {device}, {options.rounds} rounds")
        for name, values in speeds.items():
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"{name}: {middle:6.1f} images/s (median; {low:.1f} to {high:.1f})")
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["timm"], strict=True)]
        print(f"ours / timm: {statistics.median(ratios):.2f} (median of rounds)")
        compare_crops(sorted(folder.rglob("*.[jJ][pP]*")))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cache", action="store_true", help="ours keeps decoded images in memory")
    return parser.parse_args()


def generate(root: Path, images: int = 192) -> Path:
    """JPEGs of 500 x 375 pixels with the spectrum of photographs, more or less: blurred noise."""
    rng = np.random.default_rng(0)
    for index in range(images):
        pixels = np.zeros((375, 500, 3))
        for blur in (1, 4, 16, 64):
            noise = Image.fromarray(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8))
            layer = np.asarray(noise.filter(ImageFilter.GaussianBlur(blur)), dtype=float) - 128
            pixels += layer * blur / 2
        folder = root / f"class{index % 4}"
        folder.mkdir(exist_ok=True)
        image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{index}.jpg", quality=92)
    return root


def timm_epochs(folder: Path, workers: int, device: torch.device) -> Callable[[], Iterator[Any]]:
    """What goes through timm's loader in an epoch."""
    loader = create_loader(
        create_dataset("", root=str(folder)),
        input_size=(3, 224, 224),
        batch_size=BATCH,
        is_training=True,
        auto_augment=RECIPE.auto_augment,
        interpolation=RECIPE.interpolation,
        num_workers=workers,
        device=device,
        pin_memory=device.type == "cuda",
    )
    for operation in loader.dataset.transform.transforms[2].ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize  # timm's breaks down with Pillow 13
    return lambda: iter(loader)


def our_epochs(
    folder: Path, options: argparse.Namespace, device: torch.device
) -> Callable[[], Iterator[Any]]:
    """What goes through our loader in an epoch."""
    data = Folder(
        train=".",
        root=str(folder),
        batch_size=BATCH,
        num_workers=options.workers,
        cache=options.cache,
    )
    data.setup("train")
    loader = data.train_dataloader()

    def epoch() -> Iterator[Any]:
        for batch in loader:
            moved = [part.to(device, non_blocking=True) for part in batch]
            yield data.on_after_batch_transfer(moved, 0)

    return epoch


def interleave(
    epochs: dict[str, Callable[[], Iterator[Any]]], rounds: int, cpu_time: bool
) -> dict[str, list[float]]:
    """Images per second of each, one epoch of each in turn."""
    clock = time.process_time if cpu_time else time.perf_counter
    speeds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds + 1):
        for name, epoch in epochs.items():
            since = clock()
            images = sum(len(batch[0]) for batch in epoch())
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            speeds[name].append(images / (clock() - since))
    return {name: values[1:] for name, values in speeds.items()}


def compare_crops(files: list[Path]) -> None:
    """Print the mean difference between our crop and timm's, at the same places."""
    ours, theirs = RandomResizedCrop(224), RandomResizedCropAndInterpolation(224)
    differences = []
    for seed, file in enumerate(files[:32]):
        crops = []
        for crop in (ours, theirs):
            random.seed(seed)
            with Image.open(file) as image:
                crops.append(np.asarray(crop(image.convert("RGB") if crop is theirs else image)))
        differences.append(np.abs(crops[0].astype(float) - crops[1]).mean())
    print(f"crops differ by {np.mean(differences):.2f} of 255 on average")


if __name__ == "__main__":
    main()
