"""The authors' training step, from their repository, in a process of its own.

Their repository holds a timm of its own, so their step cannot share a process with ours. This file
is both ends: `Reference` starts it as a program, which then takes one step for each line it reads
and answers with the seconds. The step is their engine's: the motivating pass outside autocast, the
training pass inside, ``loss.item()``. bf16 stands for their float16, without the loss scaler.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    "deit_tiny_patch16_224": "vit_deit_tiny_patch16_224",
    "deit_small_patch16_224": "vit_deit_small_patch16_224",
    "deit_base_patch16_224": "vit_deit_base_patch16_224",
    **{name: name for name in ("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large")},
}
BRANCHES = {
    "authors' Mixup": (0,),
    "authors' SMMix, its branch": (1,),
    "authors' SMMix, as trained": (1, 0),
}


class Reference:
    """The authors' steps as actions to time; none without their repository or for other models.

    Args:
        path: A clone of their repository, or None.
        name: Our name of the model.
        options: Device, batch and precision.
    """

    def __init__(self, path: Path | None, name: str, options: argparse.Namespace) -> None:
        self.process: subprocess.Popen[str] | None = None
        if path is None or name not in NAMES:
            return
        words = [str(path), NAMES[name], options.device, options.precision, str(options.batch)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.communicate()  # closes its input, which ends it

    def actions(self) -> dict[str, Callable[[], float]]:
        """Seconds a step, by way of mixing."""
        if self.process is None:
            return {}
        return {
            way: lambda branches=branches: sum(map(self._step, branches)) / len(branches)
            for way, branches in BRANCHES.items()
        }

    def _step(self, switch_prob: int) -> float:
        assert self.process is not None and self.process.stdin and self.process.stdout
        print(switch_prob, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("the authors' code has stopped; its error is above")
        return float(answer)


def serve(path: str, name: str, device: str, precision: str, batch: int) -> None:
    """Answer each line of standard input, 1 for SMMix and 0 for Mixup, with seconds."""
    import time

    import torch

    if device == "cpu":  # they call .cuda() on indices
        torch.Tensor.cuda = lambda tensor: tensor
    sys.path[0] = path
    step = authors_step(name, device, precision, batch)
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for line in sys.stdin:
        images = torch.randn(batch, 3, 224, 224, device=device)  # their Mixup writes into them
        classes = torch.randint(1000, (batch,), device=device)
        synchronise()
        start = time.perf_counter()
        step(images, classes, int(line))
        synchronise()
        print(time.perf_counter() - start, flush=True)


def authors_step(name: str, device: str, precision: str, batch: int) -> Callable[..., None]:
    """A training step as in their engine.py, with the settings of their script."""
    import torch
    import torch.nn.functional as F

    for module in ("deit", "pvt"):  # register their models
        __import__(module)
    from smmix import SMMix  # type: ignore[import-not-found]
    from timm.loss import SoftTargetCrossEntropy
    from timm.models import create_model

    model = create_model(
        name, pretrained=False, num_classes=1000, drop_rate=0.0, drop_path_rate=0.1
    ).to(device)
    mix = SMMix(mixup_alpha=0.8, num_classes=1000, side=7 if name.startswith("pvt") else 14)
    criterion = SoftTargetCrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05)
    amp = {"device_type": torch.device(device).type, "dtype": torch.bfloat16}
    enabled = precision == "bf16"
    model.train()

    def step(images: Any, classes: Any, switch_prob: int) -> None:
        mix.switch_prob = switch_prob
        mixed, labels, extra = mix(images, classes, model)
        with torch.autocast(enabled=enabled, **amp):
            if extra is None:
                outputs, _ = model(mixed)
                loss = criterion(outputs, labels)
            else:
                target_labels, source_labels, target_mask, source_mask, teacher = extra
                outputs, on_target, on_source = model(mixed, target_mask, source_mask)
                loss = criterion(outputs, labels)
                loss = loss + 0.5 * (
                    criterion(on_target, target_labels) + criterion(on_source, source_labels)
                )
                loss = loss + F.kl_div(
                    F.log_softmax(outputs, dim=1), F.softmax(teacher, dim=1), reduction="batchmean"
                )
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    serve(*sys.argv[1:5], batch=int(sys.argv[5]))
