"""The digits dataset, a silent trainer, and test metrics, for tests of evaluations."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl import Digits


def digits(**arguments: Any) -> Digits:
    """Return a datamodule with 359 test images of 32 x 32 pixels."""
    return Digits(**({"image_size": 32, "batch_size": 100, "num_workers": 0} | arguments))


def quiet_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    """Return a CPU trainer that writes and prints nothing."""
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return Trainer(**(settings | options))


def metrics_on_digits(
    module: LightningModule, *callbacks: Callback, **arguments: Any
) -> dict[str, float]:
    """Return the metrics that a test logs; keyword arguments are those of the datamodule."""
    [metrics] = quiet_trainer(*callbacks).test(module, digits(**arguments), verbose=False)
    return dict(metrics)


def complete_test_set() -> tuple[Tensor, Tensor]:
    """Return all normalized test images and their classes."""
    data = digits(batch_size=359)
    data.setup("test")
    [batch] = data.test_dataloader()
    images, classes = data.on_after_batch_transfer(batch, 0)
    return images, classes


@torch.no_grad()
def accuracy(module: LightningModule, images: Tensor, classes: Tensor) -> float:
    """Return the top-1 accuracy of a module in eval mode."""
    return float((module.eval()(images).argmax(1) == classes).float().mean())
