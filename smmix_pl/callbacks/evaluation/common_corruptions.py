"""Robustness to common corruptions that are computed on the fly."""

from collections.abc import Sequence

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.checks import one_of
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.data.transforms import denormalize, normalize
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_heatmap
from smmix_pl.reporting.metric_names import metric_name
from smmix_pl.robustness.corruptions import REPORTED, SEVERITIES, Constants, corrupt
from smmix_pl.runs.results import Curve, EvalResult


class Corruptions(Evaluation):
    """Test accuracy under common corruptions (Hendrycks and Dietterich, 2019) by severity.

    For datasets without a corrupted copy on disk. If there is one, test on `ImageNetC` or
    `CIFAR10C` instead.

    Logged keys:
        `test/corruption_gaussian_noise_3`: Accuracy under Gaussian noise of severity 3.
        `test/corruption_mean`: Mean over all corruptions and severities.

    Args:
        names: Corruptions. `null` uses those nine of the 15 reported ones that can be computed from
            the image alone.
        severities: Severities, in 1 to 5.
        constants: Constants of the severities: `imagenet`, made for 224-pixel images, or `cifar`,
            made for 32-pixel images. `null` uses `cifar` below 64 pixels.
        seed: Seed of the noise; the noise of an image depends only on it and the image's place.
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        severities: Sequence[int] = (1, 2, 3, 4, 5),
        constants: Constants | None = None,
        seed: int = 0,
    ) -> None:
        self.names = list(names or REPORTED)
        for name in self.names:
            one_of("Corruptions.names", name, SEVERITIES)
        self.severities = sorted(set(severities))
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise InputError(
                f"Corruptions.severities={list(severities)}: must be 1 to 5. Set at least one."
            )
        self.constants = constants
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the accuracies."""
        small = max(require_image_data(trainer).image_size) < 64
        self.chosen: Constants = self.constants or ("cifar" if small else "imagenet")
        self.cells = [(name, severity) for name in self.names for severity in self.severities]
        self.passes = len(self.cells)
        self.accuracy = on_device(SweepAccuracy(1 + self.passes), model)

    def update(self, batch: EvalBatch) -> None:
        """Evaluate a batch under every corruption at every severity."""
        self.accuracy.update(0, batch.logits, batch.labels)
        mean, std = batch.data.mean, batch.data.std
        plain = denormalize(batch.images, mean, std)
        for condition, cell in enumerate(self.cells, start=1):
            corrupted = corrupt(plain, *cell, self.chosen, self.seed, batch.places)
            images = normalize((255 * corrupted).round(), mean, std).to(batch.images)
            self.accuracy.update(condition, batch.logits_of(images), batch.labels)

    def compute(self, images: int) -> EvalResult:
        """Return a curve over severities for each corruption, and the mean of all."""
        clean, *corrupted = self.accuracy.compute()
        width = len(self.severities)
        x = [0.0, *map(float, self.severities)]
        curves = {
            f"corruption_{name}": Curve(x, [clean, *corrupted[i * width : (i + 1) * width]])
            for i, name in enumerate(self.names)
        }
        protocol = {"constants": self.chosen, "seed": self.seed, "severities": self.severities}
        scalars = {"corruption_mean": sum(corrupted) / len(corrupted)}
        return EvalResult(protocol, images, scalars, curves)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the accuracies as a colored table."""
        curves = [f"corruption_{name}" for name in self.names]
        rows = {metric_name(curve): result.curves[curve].y[1:] for curve in curves}
        mean = 100 * result.scalars["corruption_mean"]
        title = f"Accuracy under corruption (mean {mean:.1f}%)"
        return {"corruptions": accuracy_heatmap(rows, self.severities, title, "Severity")}
