"""Is the data loader faster than timm's? Prints images/s of both with the ImageNet recipe.

    python benchmarks/loader_speed.py [FOLDER] [--workers 0] [--batch 64] [--rounds 7] [--cache]

FOLDER holds class folders of JPEGs. Without it, JPEGs of 500 x 375 pixels are generated. Both
loaders decode, augment, collate, and normalize the same files, in turn, on one torch thread. With
0 workers, images per second of CPU time are printed: the speed of one core, which other programs
hardly disturb. With workers, wall-clock time is used. Values are medians (range); the first round
is not counted. The last lines compare our decoded random crops and timm's: their time,
and their pixels at the same places.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image, ImageFilter
from timing import Clocked, interleave, median_and_range, median_ratio
from timm.data import auto_augment, create_dataset, create_loader
from timm.data.transforms import RandomResizedCropAndInterpolation

from smmix_pl.data import Folder, TrainTransform
from smmix_pl.data.augment import posterize
from smmix_pl.data.crop import RandomResizedCrop

BATCH = 64
RECIPE = TrainTransform()
Epoch = Callable[[], Iterator[Any]]
"""Returns an iterator over the batches of one epoch."""


def main() -> None:
    """Measure the loaders and print their speeds."""
    options = parse()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or generate(Path(scratch))
        kept = "host" if options.cache else None
        epochs = {
            "timm": timm_epochs(folder, options.workers, device, options.batch),
            "ours": our_epochs(folder, options.workers, device, options.batch, cache=kept),
            "ours, augmented on the device": our_epochs(
                folder, options.workers, device, options.batch, augment_on="device"
            ),
            "the host's part of it": our_epochs(
                folder,
                options.workers,
                device,
                options.batch,
                host_only=True,
                augment_on="device",
            ),
        }
        cpu_time = options.workers == 0
        actions = {name: images_per_second(epoch, cpu_time) for name, epoch in epochs.items()}
        speeds = interleave(actions, options.rounds)
        print(f"{folder}, {options.workers} workers, {device}, {options.rounds} rounds")
        for name, values in speeds.items():
            ratio = median_ratio(values, speeds["timm"])
            print(f"{name}: {median_and_range(values)} images/s, {ratio:.2f} of timm's")
        compare_crops(sorted(folder.rglob("*.[jJ][pP]*")), options.rounds)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cache", action="store_true", help="keep our decoded images in memory")
    return parser.parse_args()


def generate(root: Path, images: int = 192) -> Path:
    """Write JPEGs of 500 x 375 pixels of blurred noise, whose spectrum resembles photographs."""
    rng = np.random.default_rng(0)
    for index in range(images):
        pixels = np.zeros((375, 500, 3))
        for blur in (1, 4, 16, 64):
            noise = Image.fromarray(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8))
            layer = np.asarray(noise.filter(ImageFilter.GaussianBlur(blur)), dtype=float) - 128
            pixels += layer * blur / 2
        folder = root / f"class{index % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{index}.jpg", quality=92)
    return root


def timm_epochs(folder: Path, workers: int, device: torch.device, batch: int = BATCH) -> Epoch:
    """Return the epochs of timm's loader."""
    loader = create_loader(
        create_dataset("", root=str(folder)),
        input_size=(3, 224, 224),
        batch_size=batch,
        is_training=True,
        auto_augment=RECIPE.auto_augment,
        interpolation=RECIPE.interpolation,
        num_workers=workers,
        device=device,
        pin_memory=device.type == "cuda",
    )
    for operation in loader.dataset.transform.transforms[2].ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize  # timm's fails with Pillow 13
    return lambda: iter(loader)


def our_epochs(
    folder: Path,
    workers: int,
    device: torch.device,
    batch: int = BATCH,
    host_only: bool = False,
    **options: Any,
) -> Epoch:
    """Return the epochs of our loader, by default with the transfer and the work on the device.

    Further arguments are those of the datamodule.
    """
    data = Folder(train=".", root=str(folder), batch_size=batch, num_workers=workers, **options)
    data.setup("train")
    loader = data.train_dataloader()
    if host_only:
        return lambda: iter(loader)

    def epoch() -> Iterator[Any]:
        for items in loader:
            yield data.on_after_batch_transfer(move_data_to_device(items, device), 0)

    return epoch


def images_per_second(epoch: Epoch, cpu_time: bool) -> Clocked:
    """Return an action that runs one epoch and measures images per second."""
    clock = time.process_time if cpu_time else time.perf_counter

    def run() -> float:
        start = clock()
        images = sum(len(labels) for _, labels in epoch())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return images / (clock() - start)

    return run


def compare_crops(files: list[Path], rounds: int) -> None:
    """Print the time of a decoded crop of 224 pixels, and how far ours is from timm's."""
    crops = {"timm": timm_crop, "ours": RandomResizedCrop(224)}
    speeds = interleave({name: ms_per_crop(crop, files) for name, crop in crops.items()}, rounds)
    for name, values in speeds.items():
        print(f"decode and crop, {name}: {median_and_range(values, 2)} ms of CPU time")
    pairs = [
        [np.asarray(cropped(crop, file, seed), dtype=float) for crop in crops.values()]
        for seed, file in enumerate(files[:32])
    ]
    difference = np.mean([np.abs(ours - theirs).mean() for theirs, ours in pairs])
    print(f"mean absolute difference of crops: {difference:.2f} of 255")


def timm_crop(image: Image.Image) -> Image.Image:
    """Return timm's random resized crop of an opened image."""
    return RandomResizedCropAndInterpolation(224)(image.convert("RGB"))


def cropped(crop: Callable[[Any], Any], file: Path, seed: int) -> Any:
    """Return the random crop of an image file that belongs to a seed."""
    random.seed(seed)
    with Image.open(file) as image:
        return crop(image)


def ms_per_crop(crop: Callable[[Any], Any], files: list[Path]) -> Clocked:
    """Return an action that decodes and crops each file, and measures milliseconds per file."""

    def run() -> float:
        start = time.process_time()
        for seed, file in enumerate(files):
            cropped(crop, file, seed)
        return 1000 * (time.process_time() - start) / len(files)

    return run


if __name__ == "__main__":
    main()
