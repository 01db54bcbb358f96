"""Is the data loader faster than timm's? Prints images/s of both with the ImageNet recipe.

    python benchmarks/loader_speed.py [FOLDER] [--workers 0] [--batch 64] [--rounds 7] [--cache]

FOLDER holds class folders of JPEGs. Without it, JPEGs of 500 x 375 pixels are generated. Both
loaders decode, augment, collate, and normalize the same files, in turn, on one torch thread. With
0 workers, images per second of CPU time are printed: the speed of one core, which other programs
hardly disturb. With workers, wall-clock time is used. Values are medians (range); the first round
is not counted. The last line compares the pixels of our crop and timm's at the same place.
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
        }
        cpu_time = options.workers == 0
        actions = {name: images_per_second(epoch, cpu_time) for name, epoch in epochs.items()}
        speeds = interleave(actions, options.rounds)
        print(f"{folder}, {options.workers} workers, {device}, {options.rounds} rounds")
        for name, values in speeds.items():
            print(f"{name}: {median_and_range(values)} images/s")
        print(f"ours / timm: {median_ratio(speeds['ours'], speeds['timm']):.2f}")
        compare_crops(sorted(folder.rglob("*.[jJ][pP]*")))


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
    folder: Path, workers: int, device: torch.device, batch: int = BATCH, **options: Any
) -> Epoch:
    """Return the epochs of our loader, including the transfer and what follows on the device.

    Further arguments are those of the datamodule.
    """
    data = Folder(train=".", root=str(folder), batch_size=batch, num_workers=workers, **options)
    data.setup("train")
    loader = data.train_dataloader()

    def epoch() -> Iterator[Any]:
        for items in loader:
            yield data.on_after_batch_transfer(move_data_to_device(items, device), 0)

    return epoch


def images_per_second(epoch: Epoch, cpu_time: bool) -> Clocked:
    """Return an action that runs one epoch and measures images per second."""
    clock = time.process_time if cpu_time else time.perf_counter

    def run() -> float:
        start = clock()
        images = sum(len(batch[0]) for batch in epoch())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return images / (clock() - start)

    return run


def compare_crops(files: list[Path]) -> None:
    """Print the mean difference between our crop and timm's at the same places."""
    ours, theirs = RandomResizedCrop(224), RandomResizedCropAndInterpolation(224)
    differences = []
    for seed, file in enumerate(files[:32]):
        crops = []
        for crop in (ours, theirs):
            random.seed(seed)
            with Image.open(file) as image:
                crops.append(np.asarray(crop(image.convert("RGB") if crop is theirs else image)))
        differences.append(np.abs(crops[0].astype(float) - crops[1]).mean())
    print(f"mean absolute difference of crops: {np.mean(differences):.2f} of 255")


if __name__ == "__main__":
    main()
