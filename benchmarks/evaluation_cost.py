"""What do occlusion and calibration cost at evaluation? Prints two Markdown tables.

    python benchmarks/evaluation_cost.py [--model deit_tiny_patch16_224] [--images 64] [--batch 16]
        [--rounds 5] [--resolution 224] [--predictions 50000 1000000] [--classes 1000]

Occlusion: wall time of 11 ratios in one pass, as the callback runs them, and of 11 passes with one
ratio each, over JPEGs that every pass reads and decodes. Rounds alternate, and the first one is not
counted. One pass saves the decoding and the plain forward pass.

Calibration: time and memory of each metric on a stream of random predictions, each metric in a
process of its own. "Growth" is the peak memory of the process minus that before the first batch:
buffers of one batch, and the state. "Kept logits" is the memory needed to store all of them.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image
from timing import add_options, clocked, interleave, median_and_range, median_ratio, table
from torchmetrics import Metric

from smmix_pl import NoMix, SMMixModule
from smmix_pl.callbacks import Occlusion
from smmix_pl.data import Folder
from smmix_pl.metrics import (
    AdaptiveCalibration,
    ClasswiseCalibration,
    ProperScores,
    ReliabilityBins,
    TemperatureScan,
)

RATIOS = [round(0.05 + 0.09 * step, 2) for step in range(11)]
STREAM_BATCH = 1000
"""Predictions per batch of the stream."""

METRICS: dict[str, Callable[[int], Metric]] = {
    "ECE, MCE (ReliabilityBins)": lambda classes: ReliabilityBins(),
    "adaptive ECE": lambda classes: AdaptiveCalibration(),
    "class-wise ECE": ClasswiseCalibration,
    "NLL, Brier": lambda classes: ProperScores(),
    "temperature scan": lambda classes: TemperatureScan(),
}


def main() -> None:
    """Print the tables."""
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        occlusion_table(Path(scratch), options)
    calibration_table(options)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--images", type=int, default=64, help="number of test images")
    parser.add_argument("--resolution", type=int, default=224, help="image side in pixels")
    parser.add_argument("--predictions", type=int, nargs="*", default=[50_000, 1_000_000])
    parser.add_argument("--classes", type=int, default=1000)
    add_options(parser, batch=16, rounds=5, precision=False)
    return parser.parse_args()


def occlusion_table(scratch: Path, options: argparse.Namespace) -> None:
    """Time one pass with all ratios and one pass per ratio."""
    generate(scratch, options.images)
    data = Folder(
        root=str(scratch),
        image_size=options.resolution,
        batch_size=options.batch,
        num_workers=0,
    )
    size = (options.resolution, options.resolution)
    module = SMMixModule(data.num_classes, size, options.batch, NoMix(), backbone=options.model)

    def run_tests(passes: list[list[float]]) -> None:
        for ratios in passes:
            run_test(module, data, Occlusion(ratios), options.device)

    variants = {"one pass": [RATIOS], "one pass per ratio": [[ratio] for ratio in RATIOS]}
    actions = {
        name: clocked(lambda passes=passes: run_tests(passes), options.device)
        for name, passes in variants.items()
    }
    times = interleave(actions, options.rounds)
    print(f"Occlusion at {len(RATIOS)} ratios: {options.model}, {options.images} images\n")
    print(*table("", "seconds"), sep="\n")
    for name, seconds in times.items():
        print(f"| {name} | {median_and_range(seconds, digits=2)} |")
    print(f"\none pass / one pass per ratio: {median_ratio(*times.values()):.2f}")


def generate(root: Path, images: int) -> None:
    """Write JPEGs of 500 x 375 pixels in two class folders, and two of them as training images."""
    rng = np.random.default_rng(0)
    for index in range(images):
        small = rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)  # smooth, like photographs
        for split in ("train", "val") if index < 2 else ("val",):
            folder = root / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small).resize((500, 375)).save(folder / f"{index}.jpg", quality=90)


def run_test(module: SMMixModule, data: Folder, occlusion: Occlusion, device: str) -> None:
    """Run one test without output."""
    trainer = Trainer(
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[occlusion],
    )
    trainer.test(module, data, verbose=False)


def calibration_table(options: argparse.Namespace) -> None:
    """Measure time and memory of each metric on streams of several lengths."""
    print(f"\nCalibration metrics, {options.classes} classes, batches of {STREAM_BATCH}\n")
    header = "metric", "predictions", "state (MB)", "growth (MB)", "kept logits (MB)", "seconds"
    print(*table(*header), sep="\n")
    processes = multiprocessing.get_context("spawn")
    for name in METRICS:
        for count in options.predictions:
            with processes.Pool(1) as pool:  # memory is counted in a new process
                state, growth, seconds = pool.apply(measure, (name, count, options.classes))
            kept = 4 * count * options.classes / 1e6
            cells = f"{name} | {count} | {state:.2f} | {growth:.1f} | {kept:.0f} | {seconds:.1f}"
            print(f"| {cells} |", flush=True)


def measure(name: str, count: int, classes: int) -> tuple[float, float, float]:
    """Return MB of the metric's state, MB of memory growth, and seconds spent in the metric."""
    torch.set_num_threads(1)
    metric = METRICS[name](classes)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(STREAM_BATCH, classes, generator=generator)
    labels = torch.randint(classes, (STREAM_BATCH,), generator=generator)
    half = (torch.arange(STREAM_BATCH) % 2,) if isinstance(metric, TemperatureScan) else ()
    reset_peak_memory()
    before, seconds = peak_memory(), 0.0
    for _ in range(count // STREAM_BATCH):
        shift = torch.randint(classes, (), generator=generator)
        batch = logits.roll(int(shift), dims=1)  # other predictions in every batch
        start = time.perf_counter()
        metric.update(batch, labels, *half)
        seconds += time.perf_counter() - start
    metric.compute()
    state = sum(value.numel() * value.element_size() for value in metric.metric_state.values())
    return state / 1e6, peak_memory() - before, seconds


def reset_peak_memory() -> None:
    """Reset the peak to the current memory, because a child inherits its parent's. Linux only."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")


def peak_memory() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    main()
