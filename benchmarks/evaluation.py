"""What does the evaluation cost? Prints two Markdown tables.

python benchmarks/evaluation.py [--model deit_tiny_patch16_224] [--images 64] [--batch 16]
    [--rounds 5] [--resolution 224] [--predictions 50000 1000000] [--classes 1000]

Occlusion: wall time of 11 ratios in one pass, as the callback does it, over that of 11 passes with
one ratio each, over JPEGs that are read and decoded anew in every pass; taken in turn, the median
of the rounds, the first one uncounted. Decoding and the plain forward pass are what is saved.
Calibration: time and memory of each metric on a stream of random predictions, at each of the
numbers of predictions; every metric in a process of its own. What grew is the process's highest
memory over that before the first batch: buffers of one batch and the state. Kept logits is what
keeping them all would take instead.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image
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
STREAM = 1000
"""Predictions in a batch of the stream."""

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
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--predictions", type=int, nargs="*", default=[50_000, 1_000_000])
    parser.add_argument("--classes", type=int, default=1000)
    return parser.parse_args()


def occlusion_table(scratch: Path, options: argparse.Namespace) -> None:
    """One pass at all ratios against a pass for each."""
    generate(scratch, options.images)
    data = Folder(
        root=str(scratch),
        image_size=options.resolution,
        batch_size=options.batch,
        num_workers=0,
    )
    size = (options.resolution, options.resolution)
    module = SMMixModule(data.num_classes, size, options.batch, NoMix(), backbone=options.model)
    ways: dict[str, list[list[float]]] = {
        "one pass": [RATIOS],
        "a pass for each ratio": [[ratio] for ratio in RATIOS],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, sweeps in ways.items():
            start = time.perf_counter()
            for ratios in sweeps:
                run_test(module, data, Occlusion(ratios), options.device)
            times[name].append(time.perf_counter() - start)
    print(f"Occlusion at {len(RATIOS)} ratios: {options.model}, {options.images} images")
    print("\n| | seconds (median; lowest to highest) |\n|---|---|")
    for name, (_, *counted) in times.items():
        print(f"| {name} | {statistics.median(counted):.2f}; {min(counted):.2f} to ", end="")
        print(f"{max(counted):.2f} |")
    ratios = [a / b for a, b in zip(*(values[1:] for values in times.values()), strict=True)]
    print(f"\none pass / a pass for each ratio: {statistics.median(ratios):.2f} (median of rounds)")


def generate(root: Path, images: int) -> None:
    """JPEGs of 500 x 375 pixels in two class folders of a test part."""
    rng = np.random.default_rng(0)
    for index in range(images):
        small = rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)  # smooth, as photographs are
        for split in ("train", "val") if index < 2 else ("val",):
            folder = root / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small).resize((500, 375)).save(folder / f"{index}.jpg", quality=90)


def run_test(module: SMMixModule, data: Folder, occlusion: Occlusion, device: str) -> None:
    """One test, quietly."""
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
    """Time and memory of each metric on streams of growing length."""
    print(f"\nCalibration metrics, {options.classes} classes, batches of {STREAM}")
    print("\n| metric | predictions | state (MB) | grew by (MB) | kept logits (MB) | seconds |")
    print("|---|---|---|---|---|---|")
    processes = multiprocessing.get_context("spawn")
    for name in METRICS:
        for count in options.predictions:
            with processes.Pool(1) as pool:  # so that memory counts from the same start
                state, grew, seconds = pool.apply(measure, (name, count, options.classes))
            kept = 4 * count * options.classes / 1e6
            cells = f"{name} | {count} | {state:.2f} | {grew:.1f} | {kept:.0f} | {seconds:.1f}"
            print(f"| {cells} |", flush=True)


def measure(name: str, count: int, classes: int) -> tuple[float, float, float]:
    """MB of a metric's state, MB by which the process grew, and seconds in the metric."""
    torch.set_num_threads(1)
    metric = METRICS[name](classes)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(STREAM, classes, generator=generator)
    labels = torch.randint(classes, (STREAM,), generator=generator)
    half = (torch.arange(STREAM) % 2,) if isinstance(metric, TemperatureScan) else ()
    forget_peak()
    before, seconds = peak(), 0.0
    for _ in range(count // STREAM):
        shift = torch.randint(classes, (), generator=generator)
        batch = logits.roll(int(shift), dims=1)  # other predictions in every batch
        start = time.perf_counter()
        metric.update(batch, labels, *half)
        seconds += time.perf_counter() - start
    metric.compute()
    state = sum(value.numel() * value.element_size() for value in metric.metric_state.values())
    return state / 1e6, peak() - before, seconds


def forget_peak() -> None:
    """Let the highest memory be what is used now, as a child inherits its parent's; Linux only."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")


def peak() -> float:
    """The highest memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    main()
