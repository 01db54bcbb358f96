"""Metrics of corrupted test sets: error under each corruption, and mean corruption error."""

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.datasets.corrupted import Corrupted
from smmix_pl.data.trainer_datamodule import image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult


class CorruptionError(Evaluation):
    """Logs the error under each corruption, and the mean corruption error, as fractions.

    For `ImageNetC`, `CIFAR10C` and `CIFAR100C`.

    Logged keys:
        `test/error_fog`: Error under a corruption, averaged over severities.
        `test/mCE`: Mean over corruptions; on ImageNet-C relative to the errors of AlexNet.
    """

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the accuracies.

        Raises:
            InputError: The dataset has no corruptions.
        """
        data = image_data(trainer)
        if not isinstance(data, Corrupted):
            raise InputError(
                f"trainer.callbacks: CorruptionError does not support {type(data).__name__}. "
                "Remove it, or test on ImageNetC, CIFAR10C or CIFAR100C."
            )
        self.test_set = data
        self.ends = torch.tensor(data.test_ends)
        self.accuracy = on_device(SweepAccuracy(len(self.ends)), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch; the place of an image determines its corruption and severity."""
        part = torch.bucketize(torch.tensor(batch.places), self.ends, right=True)
        for condition in part.unique().tolist():
            selected = (part == condition).to(batch.logits.device)
            self.accuracy.update(condition, batch.logits[selected], batch.labels[selected])

    def compute(self, images: int) -> EvalResult:
        """Return the mean error over severities, and its mean over corruptions."""
        accuracy = torch.tensor(self.accuracy.compute())
        rates = (1 - accuracy).view(len(self.test_set.corruptions), -1).mean(dim=1)
        errors = dict(zip(self.test_set.corruptions, rates.tolist(), strict=True))
        reference = self.test_set.reference_errors
        mean = mean_corruption_error(errors, reference)
        protocol = {
            "severities": list(self.test_set.severities),
            "mCE": "plain mean" if reference is None else "relative to AlexNet",
        }
        named = {f"error_{name}": error for name, error in errors.items()}
        return EvalResult(protocol, images, named | {"mCE": mean})


def mean_corruption_error(
    errors: Mapping[str, float], reference: Mapping[str, float] | None
) -> float:
    """Return the mean error over corruptions, relative to a reference model if there is one.

    Args:
        errors: Top-1 error of each corruption, averaged over severities, in [0, 1].
        reference: Errors of the reference model. Corruptions without one are excluded. None returns
            the plain mean, as papers report it on CIFAR.
    """
    if reference is None:
        return sum(errors.values()) / len(errors)
    relative = [error / reference[name] for name, error in errors.items() if name in reference]
    return sum(relative) / len(relative) if relative else float("nan")
