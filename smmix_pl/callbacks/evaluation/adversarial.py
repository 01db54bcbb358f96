"""Robustness to white-box attacks."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_curves
from smmix_pl.robustness.attacks import PixelScale, fgsm, pgd, pixel_scale, random_start
from smmix_pl.runs.results import Curve, EvalResult


class Attack(Evaluation):
    """Test accuracy under an attack at several strengths.

    Args:
        eps: Strengths: the largest change of a pixel value, of 255.
    """

    name: ClassVar[str]

    def __init__(self, eps: Sequence[float] = (8.0,)) -> None:
        for value in eps:
            if not 0 < value <= 255:
                raise InputError(
                    f"{type(self).__name__}'s eps {value} is not in (0, 255]; it counts pixel "
                    "values, so papers' 8/255 is 8"
                )
        if not eps:
            raise InputError(f"{type(self).__name__} has no eps; papers take 8")
        self.eps = sorted(set(eps))

    @abstractmethod
    def attacked(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """The images of a batch under the attack."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What else the numbers depend on."""
        return {"unit": "pixel values of 255"}

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        self.accuracy = on_device(SweepAccuracy(1 + len(self.eps)), model)

    def update(self, batch: EvalBatch) -> None:
        """Attack one batch at every strength."""
        data = batch.trainer.datamodule  # type: ignore[attr-defined]
        scale = pixel_scale(data.mean, data.std, batch.images)
        self.accuracy.update(0, batch.logits, batch.labels)
        for condition, eps in enumerate(self.eps, start=1):
            # found in full precision: half a precision rounds small gradients to 0, sign and all
            attacked = self.attacked(batch, eps, scale)
            self.accuracy.update(condition, batch.logits_of(attacked), batch.labels)

    def compute(self, images: int) -> EvalResult:
        """The accuracy at each strength."""
        curve = Curve([0.0, *self.eps], self.accuracy.compute())
        return EvalResult(self.protocol, images, curves={self.name: curve})

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The curve."""
        curves = {type(self).__name__: report.curves[self.name]}
        title = f"Robustness to {type(self).__name__}"
        return {self.name: accuracy_curves(curves, title, "eps (pixel values of 255)")}


class FGSM(Attack):
    """Test accuracy under the fast gradient sign method (Goodfellow et al., 2015).

    Logs ``test/fgsm_8`` for eps = 8/255. Arguments: see `Attack`.
    """

    name = "fgsm"

    def attacked(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """One step."""
        return fgsm(batch.model, batch.images, batch.classes, eps, scale)


class PGD(Attack):
    """Test accuracy under projected gradient descent (Madry et al., 2018) from a random start.

    Logs ``test/pgd_8`` for eps = 8/255. The random start of an image depends only on the seed and
    its place in the test set.

    Args:
        eps: Strengths: the largest change of a pixel value, of 255.
        step: Pixel values per step.
        steps: How many.
        seed: Of the random start.
    """

    name = "pgd"

    def __init__(
        self, eps: Sequence[float] = (8.0,), step: float = 2.0, steps: int = 10, seed: int = 0
    ) -> None:
        super().__init__(eps)
        if steps < 1 or not 0 < step <= 255:
            raise InputError(f"PGD takes {steps} steps of {step}; papers take 10 of 2")
        self.step, self.steps, self.seed = step, steps, seed

    @property
    def protocol(self) -> dict[str, Any]:
        """What else the numbers depend on."""
        own = {"step": self.step, "steps": self.steps, "start": "random", "seed": self.seed}
        return super().protocol | own

    def attacked(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """Several steps, within the limit."""
        start = random_start(batch.images, self.seed, batch.places)
        return pgd(
            batch.model, batch.images, batch.classes, eps, scale, start, self.step, self.steps
        )
