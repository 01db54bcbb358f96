"""What papers report on the corrupted sets: the error under each corruption, and their mean."""

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.datasets.corrupted import Corrupted
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult


class CorruptionError(Evaluation):
    """Logs the error under each corruption and the mean corruption error, as fractions.

    As ``test/error_fog``, mean over severities, and ``test/mCE``, relative to AlexNet's errors on
    ImageNet-C. For `ImageNetC`, `CIFAR10C` and `CIFAR100C`.
    """

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew.

        Raises:
            InputError: The data has no corruptions.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, Corrupted):
            raise InputError(
                f"CorruptionError is for ImageNetC, CIFAR10C and CIFAR100C, not for "
                f"{type(data).__name__}; take it out of trainer.callbacks"
            )
        self.data = data
        self.ends = torch.tensor(data.test_ends)
        self.accuracy = on_device(SweepAccuracy(len(self.ends)), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch, each image to the corruption and severity that its place is in."""
        part = torch.bucketize(torch.tensor(batch.places), self.ends, right=True)
        for condition in part.unique().tolist():
            here = (part == condition).to(batch.logits.device)
            self.accuracy.update(condition, batch.logits[here], batch.labels[here])

    def compute(self, images: int) -> EvalResult:
        """Mean errors over severities, and their mean over corruptions."""
        accuracy = torch.tensor(self.accuracy.compute())
        rates = (1 - accuracy).view(len(self.data.corruptions), -1).mean(dim=1)
        errors = dict(zip(self.data.corruptions, rates.tolist(), strict=True))
        reference = self.data.reference_errors
        mean = mean_corruption_error(errors, reference)
        protocol = {
            "severities": list(self.data.severities),
            "mCE": "plain mean" if reference is None else "relative to AlexNet",
        }
        named = {f"error_{name}": error for name, error in errors.items()}
        return EvalResult(protocol, images, named | {"mCE": mean})


def mean_corruption_error(
    errors: Mapping[str, float], reference: Mapping[str, float] | None
) -> float:
    """Mean over corruptions of the error, relative to a reference model's where there is one.

    Args:
        errors: Top-1 error of each corruption, mean over severities, in [0, 1].
        reference: The reference model's; null for the plain mean, as papers do on CIFAR.
            Corruptions that it does not know are left out.
    """
    if reference is None:
        return sum(errors.values()) / len(errors)
    relative = [error / reference[name] for name, error in errors.items() if name in reference]
    return sum(relative) / len(relative) if relative else float("nan")
