"""The digits, quietly tested: what the tests of the evaluations share."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl import Digits


def digits(**arguments: Any) -> Digits:
    """359 test images of 32 x 32 pixels."""
    return Digits(**({"image_size": 32, "batch_size": 100, "num_workers": 0} | arguments))


def quiet_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    """A trainer on the CPU that writes nothing."""
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return Trainer(**(settings | options))


def found_on_digits(
    module: LightningModule, *callbacks: Callback, **arguments: Any
) -> dict[str, float]:
    """What a test on the digits logs; arguments are the data's."""
    [found] = quiet_trainer(*callbacks).test(module, digits(**arguments), verbose=False)
    return dict(found)


def whole_test_set() -> tuple[Tensor, Tensor]:
    """All test images, normalized, and their classes."""
    data = digits(batch_size=359)
    data.setup("test")
    [batch] = data.test_dataloader()
    images, classes = data.on_after_batch_transfer(batch, 0)
    return images, classes


@torch.no_grad()
def accuracy(module: LightningModule, images: Tensor, classes: Tensor) -> float:
    """Top-1 accuracy of a module in eval mode."""
    return float((module.eval()(images).argmax(1) == classes).float().mean())
