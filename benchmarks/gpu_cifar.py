"""Train several methods on CIFAR-10 at the same time on one GPU, for as many epochs as fit.

Part 4 of benchmarks/gpu.sh. Writes OUT/cifar.json. The network is that of
configs/cifar10_deit_t.yaml: DeiT-T with 4-pixel patches on 32-pixel images. Each method and seed is
a process of its own (gpu_cifar_run.py), which holds all images on the GPU and pads, crops and flips
them there. All methods train the same number of epochs: the speed is measured first, with all
processes at work. The test set is evaluated once, after the last epoch.

CARRY/cifar10 holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, as folders or in one tar archive.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_cifar_run import BATCH, METHODS
from gpu_common import PartResults, common_parser, cpu_cores, parse, time_left
from PIL import Image
from torch import Tensor

SAFETY = 0.9
"""Fraction of the time left that the planned epochs may take."""


def main() -> None:
    """Decode the images, train all runs, and print the test results."""
    options = parse_options()
    results = PartResults(options, "cifar", batch=BATCH, seeds=options.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        source = find_images(options, Path(scratch))
        if source is None:
            results.skip(f"no CIFAR-10 images in {options.carry / 'cifar10'}")
        team = Team(options)
        try:
            data = Path(scratch) / "images.pt"
            torch.save(decode(source), data)
            train_all(team, data, results)
        finally:
            team.stop()
    summarize(results.content["results"])
    results.finish()


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = common_parser(__doc__, seconds=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parse(parser)
    options.methods = ("no mixing", "TransMix", "SMMix") if options.smoke else tuple(METHODS)
    options.probe_seconds = 0.5 if options.smoke else 10
    options.test_seconds = 5 if options.smoke else 15
    return options


class Team:
    """One worker process per method and seed, which begin each phase together.

    Processes start at once, so that they import their packages while the images are decoded.

    Args:
        options: Parsed options.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seconds_per_epoch: list[float] = []
        self.plan: dict[str, float] = {}
        runs = [(method, seed) for seed in options.seeds for method in options.methods]
        threads = str(max(1, cpu_cores() // len(runs)))
        self.processes = {run: self._start(*run, threads) for run in runs}
        self.ready = threading.Barrier(len(runs))
        self.probed = threading.Barrier(len(runs), action=self._make_plan)

    def run(self, method: str, seed: int, data: Path) -> dict[str, Any]:
        """Take one worker through its phases and return its results.

        A worker that fails leaves the others at work.
        """
        process = self.processes[method, seed]
        speed: dict[str, float] = {}
        try:
            ask(process, data=str(data))
        finally:
            self._wait(self.ready)
        try:
            speed = ask(process, probe=self.options.probe_seconds)
            self.seconds_per_epoch.append(speed["seconds_per_epoch"])
        finally:
            self._wait(self.probed)
        return {"method": method, "seed": seed, **speed, **ask(process, **self.plan)}

    def stop(self) -> None:
        """End the workers that are still running."""
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _start(self, method: str, seed: int, threads: str) -> subprocess.Popen[str]:
        program = Path(__file__).with_name("gpu_cifar_run.py")
        settings = ["--device", self.options.device, "--precision", self.options.precision]
        smoke = ["--smoke"] if self.options.smoke else []
        return subprocess.Popen(
            [sys.executable, str(program), method, str(seed), *settings, *smoke],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": threads},
        )

    def _wait(self, barrier: threading.Barrier) -> None:
        barrier.wait(timeout=max(1, time_left(self.options)))

    def _make_plan(self) -> None:
        """Choose the number of epochs by the slowest method."""
        left = time_left(self.options) - self.options.test_seconds
        slowest = max(self.seconds_per_epoch, default=left)
        epochs = 1 if self.options.smoke else max(1, int(SAFETY * left / slowest))
        self.plan = {"epochs": epochs, "until": time.time() + left}
        print(f"training for {epochs} epochs of at most {slowest:.2f} s", flush=True)


def ask(process: subprocess.Popen[str], **request: Any) -> dict[str, Any]:
    """Send a request to a worker and return its answer."""
    assert process.stdin and process.stdout
    try:
        print(json.dumps(request), file=process.stdin, flush=True)
        return dict(json.loads(process.stdout.readline()))
    except (OSError, json.JSONDecodeError) as error:
        raise RuntimeError("the worker process failed; its error is in the log") from error


def train_all(team: Team, data: Path, results: PartResults) -> None:
    """Train all runs and save each result as soon as it is there."""
    with ThreadPoolExecutor(len(team.processes)) as pool:
        runs = {pool.submit(team.run, *run, data): run for run in team.processes}
        for future in as_completed(runs):
            try:
                results.add(**future.result())
            except Exception as error:
                results.problem("{}, seed {}".format(*runs[future]), error)


def summarize(rows: list[dict[str, Any]]) -> None:
    """Print the mean over seeds for each method."""
    by_method = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)
    for method, seeds in by_method.items():
        means = {
            key: 100 * statistics.mean(row[key] for row in seeds)
            for key in ("top1", "ece", "occlusion_50")
        }
        numbers = ", ".join(f"{key} {value:.2f}" for key, value in means.items())
        print(f"{method}: {numbers} ({seeds[0]['epochs']} epochs, {len(seeds)} seeds)", flush=True)


def find_images(options: argparse.Namespace, scratch: Path) -> Path | None:
    """Return the folder or archive of the images; the smoke run generates some."""
    folder = options.carry / "cifar10"
    if options.smoke:
        return generate(scratch / "cifar10.tar")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return Path(folder)
    return next(iter(sorted(folder.glob("*.tar*"))), None)


def generate(archive: Path) -> Path:
    """Write an archive of small random JPEGs whose mean color depends on the class."""
    rng = np.random.default_rng(0)
    with tarfile.open(archive, "w") as tar:
        for part, images in (("train", 8), ("test", 4)):
            for label in range(10):
                for index in range(images):
                    pixels = rng.normal(25 * label, 30, (32, 32, 3)).clip(0, 255)
                    file = io.BytesIO()
                    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
                    member = tarfile.TarInfo(f"{part}/class{label}/{index:04}.jpg")
                    member.size = file.tell()
                    file.seek(0)
                    tar.addfile(member, file)
    return archive


def decode(source: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return uint8 images `(N, 3, S, S)` and int64 classes `(N,)` of `train` and `test`."""
    files = sorted(read(source))
    names = sorted({Path(file).parts[-2] for file, _ in files})
    decoded = {}
    with ThreadPoolExecutor(cpu_cores()) as pool:
        for part in ("train", "test"):
            chosen = [(file, content) for file, content in files if Path(file).parts[-3] == part]
            images = list(pool.map(lambda item: pixels(item[1]), chosen))
            classes = [names.index(Path(file).parts[-2]) for file, _ in chosen]
            decoded[part] = (
                torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
                torch.tensor(classes),
            )
    return decoded


def read(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each JPEG in a folder or archive."""
    if source.is_dir():
        for file in source.rglob("*.jpg"):
            yield str(file), file.read_bytes()
        return
    with tarfile.open(source) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read()


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    """Decode one image to uint8 `(S, S, 3)`."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
