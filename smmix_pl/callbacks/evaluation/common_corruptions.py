"""Robustness to common corruptions, made on the fly."""

from collections.abc import Sequence

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.transforms import denormalize, normalize
from smmix_pl.errors import InputError, did_you_mean
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_heatmap
from smmix_pl.reporting.metric_specs import metric_name
from smmix_pl.robustness.corruptions import REPORTED, SEVERITIES, Constants, corrupt
from smmix_pl.runs.results import Curve, EvalResult


class Corruptions(Evaluation):
    """Test accuracy under common corruptions (Hendrycks and Dietterich, 2019) by severity.

    For data without a corrupted copy on disk; where there is one, test on `ImageNetC` or `CIFAR10C`
    instead. Logs ``test/corruption_gaussian_noise_3`` for severity 3, and ``test/corruption_mean``
    over all corruptions and severities.

    Args:
        names: Which; null takes the nine of the 15 reported ones that need nothing but the image.
        severities: Which, 1 to 5.
        constants: The severities' constants: ``imagenet``, made for images of 224 pixels, or
            ``cifar``, for 32; null takes the latter below 64 pixels.
        seed: Of the noises; an image's noise depends only on it and on the image's place.
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
            if name not in SEVERITIES:
                hint = did_you_mean(name, SEVERITIES)
                raise InputError(f"Corruptions has no {name!r}; {hint}")
        self.severities = sorted(set(severities))
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise InputError(f"Corruptions' severities are {list(severities)}; they are 1 to 5")
        self.constants = constants
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        size = trainer.datamodule.image_size  # type: ignore[attr-defined]
        self.chosen: Constants = self.constants or ("cifar" if max(size) < 64 else "imagenet")
        self.cells = [(name, severity) for name in self.names for severity in self.severities]
        self.accuracy = on_device(SweepAccuracy(1 + len(self.cells)), model)

    def update(self, batch: EvalBatch) -> None:
        """Evaluate one batch under every corruption at every severity."""
        data = batch.trainer.datamodule  # type: ignore[attr-defined]
        self.accuracy.update(0, batch.logits, batch.labels)
        plain = denormalize(batch.images, data.mean, data.std)
        for condition, cell in enumerate(self.cells, start=1):
            corrupted = corrupt(plain, *cell, self.chosen, self.seed, batch.places)
            again = normalize((255 * corrupted).round(), data.mean, data.std).to(batch.images)
            self.accuracy.update(condition, batch.logits_of(again), batch.labels)

    def compute(self, images: int) -> EvalResult:
        """A curve over severities for each corruption, and the mean of all."""
        whole, *rest = self.accuracy.compute()
        width = len(self.severities)
        x = [0.0, *map(float, self.severities)]
        curves = {
            f"corruption_{name}": Curve(x, [whole, *rest[i * width : (i + 1) * width]])
            for i, name in enumerate(self.names)
        }
        protocol = {"constants": self.chosen, "seed": self.seed, "severities": self.severities}
        return EvalResult(protocol, images, {"corruption_mean": sum(rest) / len(rest)}, curves)

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The table in colors."""
        curves = [f"corruption_{name}" for name in self.names]
        rows = {metric_name(curve): report.curves[curve].y[1:] for curve in curves}
        mean = 100 * report.scalars["corruption_mean"]
        title = f"Top-1 accuracy (%) under corruption, mean {mean:.1f}"
        return {"corruptions": accuracy_heatmap(rows, self.severities, title, "severity")}
