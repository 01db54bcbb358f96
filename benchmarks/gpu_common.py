"""Shared parts of the GPU benchmarks: options, time limit, JSON results, and models.

Every part of benchmarks/gpu.sh is a program with the same options. It writes its results to one
JSON file after each measurement, so that a part that is stopped keeps what it has measured.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from smmix_pl import Mixer, SMMixModule
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.step_timer import device_name

START = time.monotonic()
SKIPPED = 3
"""Exit status of a part whose data is missing."""
PACKAGES = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy", "pillow")
PEAK_TFLOPS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bf16 peak from the data sheets, by a part of the card's name; the first match counts."""


def common_parser(description: str, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with the options that all parts share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for the JSON")
    parser.add_argument("--carry", type=Path, default=Path("carry"), help="folder of input data")
    parser.add_argument("--seconds", type=float, default=seconds, help="time limit of this part")
    parser.add_argument("--smoke", action="store_true", help="run on the CPU with tiny sizes")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and add `device` and `precision`."""
    options = parser.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        parser.error("no CUDA device found. Pass --smoke to check the program on the CPU.")
    options.device = "cpu" if options.smoke else "cuda"
    options.precision = "float32" if options.smoke else "bf16"
    return options


def time_left(options: argparse.Namespace) -> float:
    """Return the seconds until the time limit of this part."""
    return float(options.seconds - (time.monotonic() - START))


class PartResults:
    """The results of one part, saved to `OUT/PART.json` after every change.

    Args:
        options: Parsed options.
        part: Name of the part and of its file.
        **settings: What the results depend on, such as the batch size.
    """

    def __init__(self, options: argparse.Namespace, part: str, **settings: Any) -> None:
        self.path = options.out / f"{part}.json"
        self.content: dict[str, Any] = {
            "part": part,
            "status": "incomplete",
            "smoke": options.smoke,
            "environment": environment(options.device),
            "settings": settings
            | {"precision": options.precision, "time_limit_s": options.seconds},
            "results": [],
            "problems": [],
        }
        options.out.mkdir(parents=True, exist_ok=True)
        self.save()

    def add(self, **row: Any) -> None:
        """Add one row of results."""
        self.content["results"].append(row)
        self.save()

    def problem(self, what: str, error: object) -> None:
        """Record and print why a measurement is missing."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self.content["problems"].append({"what": what, "error": lines[0][:500]})
        print(f"{what}: {lines[0]}", flush=True)
        self.save()

    def finish(self) -> None:
        """Mark the results as complete."""
        self.content["status"] = "complete"
        self.save()

    def skip(self, reason: str) -> None:
        """Record that the part cannot run, and exit with the status `SKIPPED`."""
        self.content["status"] = "skipped"
        self.problem(self.content["part"], reason)
        sys.exit(SKIPPED)

    def save(self) -> None:
        """Write the file in one step."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(partial, self.path)


def environment(device: str) -> dict[str, Any]:
    """Return the hardware, the software versions, the commit, and the date."""
    return {
        "device": device_name(torch.device(device)),
        "cpu_cores": cpu_cores(),
        "driver": first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "python": platform.python_version(),
        **{name: installed_version(name) for name in PACKAGES},
        "commit": os.environ.get("COMMIT") or first_line("git", "describe", "--always", "--dirty"),
        "date": time.strftime("%Y-%m-%d"),
    }


def cpu_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def first_line(*command: str) -> str | None:
    """Return the first line that a command prints, or None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def installed_version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_flops(device: str) -> float | None:
    """Return the dense bf16 peak of the card in FLOP/s, or None if it is not known."""
    name = device_name(torch.device(device))
    known = (tflops for part, tflops in PEAK_TFLOPS.items() if part in name)
    return 1e12 * tflops if (tflops := next(known, None)) else None


def build_module(
    backbone: str,
    num_classes: int,
    image_size: int,
    batch: int,
    mixer: Mixer,
    device: str,
    backbone_args: dict[str, Any] | None = None,
    guide_size: int | None = None,
    compile: bool = False,
    seed: int = 0,
) -> SMMixModule:
    """Return a module in train mode on the device, with the recipe's drop path rate.

    All parts build their models here.
    """
    torch.manual_seed(seed)
    module = SMMixModule(
        num_classes,
        (image_size, image_size),
        batch,
        mixer,
        backbone=backbone,
        backbone_args={"drop_path_rate": 0.1} | (backbone_args or {}),
        guide=GuideConfig(size=guide_size),
        compile=compile,
    )
    return module.to(device).train()
