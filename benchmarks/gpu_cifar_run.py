"""Train one method on CIFAR-10 with all data and augmentation on the device.

A worker process of gpu_cifar.py, which starts several at once and keeps them in step. It reads one
JSON request per line and answers each with one JSON line:

1. `{"data": FILE}` loads the decoded images.
2. `{"probe": SECONDS}` is answered with the seconds per epoch.
3. `{"epochs": E, "until": UNIX_TIME}` is answered with the test results.

Shapes: N images of the set, B images of a batch, S image side.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gpu_common import build_module
from timing import autocast, train_step
from torch import Tensor

from smmix_pl import Mixer, MixupCutMix, NoMix, OptimConfig, SMMix, SMMixModule, TransMix
from smmix_pl.data import CIFAR10
from smmix_pl.data.transforms import normalize
from smmix_pl.metrics import ReliabilityBins, SweepAccuracy
from smmix_pl.optim import create_optimizer, create_schedule
from smmix_pl.robustness.patches import holes, random_order
from smmix_pl.runs.results import Curve
from smmix_pl.step_timer import synchronized_time

METHODS: dict[str, type[Mixer] | Any] = {
    "no mixing": NoMix,
    "Mixup+CutMix": MixupCutMix,
    "TransMix": TransMix,
    "SMMix": SMMix,
    "SMMix, random regions": lambda: SMMix(region_choice="random"),
}
RATIOS = (0.25, 0.5, 0.75)
BATCH, PADDING, CLASSES = 512, 4, 10
OPTIM = OptimConfig(lr=1e-3, lr_batch=512, min_lr=1e-5)
WARMUP = 5 / 64
"""Fraction of the epochs that the learning rate rises, as in configs/cifar10_deit_t.yaml."""


class DeviceImages:
    """A training set of uint8 images on the device, augmented there: random crop and flip.

    Args:
        images: uint8 `(N, 3, S, S)`.
        classes: int64 `(N,)`.
        seed: Seed of batch order, crops and flips.
    """

    def __init__(self, images: Tensor, classes: Tensor, seed: int) -> None:
        self.side = images.shape[-1]
        self.padded = torch.nn.functional.pad(images, [PADDING] * 4)
        self.classes, self.seed = classes, seed
        self.batch = min(BATCH, len(images))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.classes) // self.batch

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalized images `(B, 3, S, S)` and classes `(B,)` in random order."""
        device, count = self.classes.device, len(self.classes)
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        offsets = (0, 2 * PADDING + 1)
        order = torch.randperm(count, generator=generator).to(device)
        top, left = (torch.randint(*offsets, (count,), generator=generator) for _ in range(2))
        flip = torch.rand(count, generator=generator) < 0.5
        places = [values.to(device) for values in (top, left, flip)]
        for batch in range(len(self)):
            index = order[batch * self.batch : (batch + 1) * self.batch]
            crops = crop_and_flip(self.padded, index, *(at[index] for at in places), self.side)
            yield normalized(crops), self.classes[index]


def crop_and_flip(
    padded: Tensor, index: Tensor, top: Tensor, left: Tensor, flip: Tensor, side: int
) -> Tensor:
    """Crop a window from each selected image and mirror some of them, in one gather.

    Args:
        padded: `(N, 3, P, P)`.
        index: Selected images, `(B,)`.
        top: First row of each window, `(B,)`.
        left: First column of each window, `(B,)`.
        flip: Bool, `(B,)`; True mirrors the window horizontally.
        side: S.

    Returns:
        `(B, 3, S, S)`.
    """
    span = torch.arange(side, device=padded.device)
    rows = top[:, None] + span
    columns = left[:, None] + torch.where(flip[:, None], side - 1 - span, span)
    channels_last = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return channels_last.permute(0, 3, 1, 2)


def normalized(images: Tensor) -> Tensor:
    """Return uint8 images as float32, normalized for CIFAR-10."""
    return normalize(images, CIFAR10.own_mean, CIFAR10.own_std)


class Run:
    """Training and evaluation of one method with one seed.

    Args:
        options: Command line of this worker.
        data: Images and classes of `train` and `test`, uint8 and int64, on the CPU.
    """

    def __init__(self, options: argparse.Namespace, data: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.options = options
        on_device = {part: [x.to(options.device) for x in pair] for part, pair in data.items()}
        self.train_set = DeviceImages(*on_device["train"], options.seed)
        self.test_images, self.test_classes = on_device["test"]
        self.mixer: Mixer = METHODS[options.method]()

    def probe(self, seconds: float) -> float:
        """Train a throwaway model, and return the seconds per epoch."""
        module = self._build()
        optimizer = create_optimizer(module.backbone, OPTIM, lr=1e-5)
        batches, done, start = self.train_set.epoch(0), 0, self._synchronized_time()
        for images, classes in batches:
            self._step(module, optimizer, images, classes, (0, done))
            done += 1
            if done == 3:  # the first steps allocate memory and choose kernels
                start = self._synchronized_time()
            if done > 3 and self._synchronized_time() - start > seconds:
                break
        return (self._synchronized_time() - start) / max(done - 3, 1) * len(self.train_set)

    def train(self, epochs: int, until: float) -> dict[str, Any]:
        """Train for a number of epochs, or until a Unix time, and return the test results."""
        module = self._build()
        optimizer = create_optimizer(module.backbone, OPTIM, OPTIM.effective_lr(BATCH))
        steps = len(self.train_set)
        settings = replace(OPTIM, warmup_epochs=WARMUP * epochs)
        schedule = create_schedule(optimizer, settings, epochs * steps, steps)
        start, done = time.time(), 0
        for epoch in range(epochs):
            for index, (images, classes) in enumerate(self.train_set.epoch(epoch)):
                self._step(module, optimizer, images, classes, (epoch, index))
                schedule.step_update(epoch * steps + index + 1)
            self._synchronized_time()
            done += 1
            if time.time() > until:
                break
        seconds = time.time() - start
        trained = {"epochs": done, "planned_epochs": epochs, "train_seconds": seconds}
        return trained | self._evaluate(module)

    @torch.no_grad()
    def _evaluate(self, module: SMMixModule) -> dict[str, float]:
        """Return top-1 accuracy, ECE, and accuracy with a part of the patches set to zero."""
        module.eval()
        bins = ReliabilityBins(n_bins=15).to(self.options.device)
        accuracy = SweepAccuracy(1 + len(RATIOS)).to(self.options.device)
        order = random_order(module.backbone.grid, 0, range(len(self.test_classes)))
        for part in torch.arange(len(self.test_classes)).split(1000):
            images, classes = normalized(self.test_images[part]), self.test_classes[part]
            ranks = order[part].to(self.options.device)
            with autocast(self.options.device, self.options.precision):
                logits = module(images)
                bins.update(logits, classes)
                accuracy.update(0, logits, classes)
                for condition, ratio in enumerate(RATIOS, start=1):
                    hole = holes(ranks, ratio, images.shape[2:])[:, None]
                    accuracy.update(condition, module(images.masked_fill(hole, 0)), classes)
        curve = accuracy.compute()
        occluded = dict(zip((f"occlusion_{r:.0%}"[:-1] for r in RATIOS), curve[1:], strict=True))
        area = Curve([0.0, *RATIOS], curve).area
        ece = float(bins.compute().ece)
        return {"top1": curve[0], "ece": ece, **occluded, "occlusion_auc_75": area}

    def _build(self) -> SMMixModule:
        tiny = {"embed_dim": 48, "depth": 2, "num_heads": 3} if self.options.smoke else {}
        return build_module(
            "deit_tiny_patch16_224",
            CLASSES,
            self.train_set.side,
            BATCH,
            self.mixer,
            self.options.device,
            {"patch_size": 4} | tiny,
            seed=self.options.seed,
        )

    def _step(
        self,
        module: SMMixModule,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        classes: Tensor,
        place: tuple[int, int],
    ) -> None:
        rng = np.random.default_rng((self.options.seed, *place))
        precision = autocast(self.options.device, self.options.precision)
        train_step(module, optimizer, self.mixer, images, classes, rng, precision)

    def _synchronized_time(self) -> float:
        return synchronized_time(torch.device(self.options.device))


def main() -> None:
    """Answer the requests of gpu_cifar.py."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # only answers may reach standard output

    def request() -> dict[str, Any]:
        line = sys.stdin.readline()
        return json.loads(line) if line else sys.exit()

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    options = parse()
    run = Run(options, torch.load(request()["data"], weights_only=True))
    answer()
    answer(seconds_per_epoch=run.probe(request()["probe"]))
    answer(**run.train(**request()))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("seed", type=int)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16")
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
