"""Robustness to white-box attacks."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_curves
from smmix_pl.robustness.attacks import PixelScale, fgsm, pgd, pixel_scale, random_start
from smmix_pl.robustness.auto_attack import MOST_PASSES, auto_attack, require_library
from smmix_pl.runs.results import Curve, EvalResult


class Attack(Evaluation):
    """Test accuracy under an attack at several strengths.

    Args:
        eps: Attack strengths: largest change of a pixel, in pixel values of 255.
    """

    name: ClassVar[str]
    steps = 1

    def __init__(self, eps: Sequence[float] = (8.0,)) -> None:
        attack = type(self).__name__
        for value in eps:
            if not 0 < value <= 255:
                raise InputError(
                    f"{attack}.eps={value}: must be in (0, 255]. "
                    "Give pixel values; 8/255 in papers is 8."
                )
        if not eps:
            raise InputError(f"{attack}.eps=[]: empty. Set at least one strength; papers use 8.")
        self.eps = sorted(set(eps))

    @abstractmethod
    def perturb(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """Return the attacked images of a batch."""

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings that the accuracies depend on."""
        return {"unit": "pixel values of 255"}

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the accuracies."""
        self.passes = len(self.eps) * (1 + self.steps)
        self.accuracy = on_device(SweepAccuracy(1 + len(self.eps)), model)

    def update(self, batch: EvalBatch) -> None:
        """Attack a batch at every strength."""
        scale = pixel_scale(batch.data.mean, batch.data.std, batch.images)
        self.accuracy.update(0, batch.logits, batch.labels)
        for condition, eps in enumerate(self.eps, start=1):
            # computed in full precision: half precision rounds small gradients to 0
            attacked = self.perturb(batch, eps, scale)
            self.accuracy.update(condition, batch.logits_of(attacked), batch.labels)

    def compute(self, images: int) -> EvalResult:
        """Return the accuracy at each strength."""
        curve = Curve([0.0, *self.eps], self.accuracy.compute())
        return EvalResult(self.protocol, images, curves={self.name: curve})

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the accuracy curve."""
        curves = {type(self).__name__: [result.curves[self.name]]}
        title = f"Robustness to {type(self).__name__}"
        return {
            self.name: accuracy_curves(curves, title, "Attack strength eps (pixel values of 255)")
        }


class FGSM(Attack):
    """Test accuracy under the fast gradient sign method (Goodfellow et al., 2015).

    Logged keys:
        `test/fgsm_8`: Accuracy at eps = 8/255.

    Args:
        eps: Attack strengths: largest change of a pixel, in pixel values of 255.
    """

    name = "fgsm"

    def perturb(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """Return the images after one step."""
        return fgsm(batch.model, batch.images, batch.classes, eps, scale)


class PGD(Attack):
    """Test accuracy under projected gradient descent (Madry et al., 2018) from a random start.

    The random start of an image depends only on the seed and its place in the test set.

    Logged keys:
        `test/pgd_8`: Accuracy at eps = 8/255.

    Args:
        eps: Attack strengths: largest change of a pixel, in pixel values of 255.
        step: Step size in pixel values.
        steps: Number of steps.
        seed: Seed of the random start.
    """

    name = "pgd"

    def __init__(
        self, eps: Sequence[float] = (8.0,), step: float = 2.0, steps: int = 10, seed: int = 0
    ) -> None:
        super().__init__(eps)
        if steps < 1:
            raise InputError(f"PGD.steps={steps}: must be at least 1. Papers use 10.")
        if not 0 < step <= 255:
            raise InputError(f"PGD.step={step}: must be in (0, 255] pixel values. Papers use 2.")
        self.step, self.steps, self.seed = step, steps, seed

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings that the accuracies depend on."""
        own = {"step": self.step, "steps": self.steps, "start": "random", "seed": self.seed}
        return super().protocol | own

    def perturb(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """Return the images after several steps, within the limit."""
        start = random_start(batch.images, self.seed, batch.places)
        return pgd(
            batch.model, batch.images, batch.classes, eps, scale, start, self.step, self.steps
        )


class AutoAttack(Attack):
    """Test accuracy under AutoAttack (Croce and Hein, 2020), standard version, L-infinity.

    Four attacks in a row, each on the images that withstood the earlier ones: APGD on the cross
    entropy, targeted APGD, targeted FAB, and Square. They have no settings, so that results of
    different papers are comparable. The authors' code runs them, an extra:
    `pip install 'smmix-pl[attacks]'`. It needs at least 4 classes.

    An image that withstands all attacks takes thousands of forward passes. A fixed draw of the test
    images is attacked, the same for every model, in batches of `data.batch_size`. Random choices
    depend on the seed and on the batch, so that another batch size changes results slightly.

    Logged keys:
        `test/autoattack_8`: Accuracy at eps = 8/255.

    Args:
        eps: Attack strengths: largest change of a pixel, in pixel values of 255.
        images: Number of attacked images; `null` attacks all. Papers use 1,000 to 10,000.
        seed: Seed of the random starts and of Square; the drawn images do not depend on it.
    """

    name = "autoattack"

    def __init__(
        self, eps: Sequence[float] = (8.0,), images: int | None = 1000, seed: int = 0
    ) -> None:
        super().__init__(eps)
        if images is not None and images < 1:
            raise InputError(f"AutoAttack.images={images}: must be at least 1, or null for all.")
        self.images, self.seed = images, seed

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings that the accuracies depend on."""
        drawn = "all" if self.places is None else "drawn"
        return super().protocol | {"version": "standard", "images": drawn, "seed": self.seed}

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Draw the attacked images, and reset the accuracies."""
        require_library()
        super().reset(trainer, model)
        self.waiting: list[EvalBatch] = []
        self.places = None
        self.passes = len(self.eps) * MOST_PASSES
        total = require_image_data(trainer).counts["test"]
        if self.images is not None and self.images < total:
            order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
            self.places = set(order[: self.images].tolist())
            self.passes = math.ceil(self.passes * self.images / total)

    def update(self, batch: EvalBatch) -> None:
        """Collect images, and attack them as soon as they fill a batch."""
        self.waiting.append(batch)
        if sum(len(one.places) for one in self.waiting) >= batch.data.batch_size:
            self._attack()

    def compute(self, images: int) -> EvalResult:
        """Attack the remaining images, and return the accuracy at each strength."""
        if self.waiting:
            self._attack()
        return super().compute(images)

    def perturb(self, batch: EvalBatch, eps: float, scale: PixelScale) -> Tensor:
        """Return the images after the first attack that succeeded."""
        return auto_attack(batch.model, batch.images, batch.classes, eps, scale, self.seed)

    def _attack(self) -> None:
        images, labels, logits = (
            torch.cat([getattr(one, name) for one in self.waiting])
            for name in ("images", "labels", "logits")
        )
        places = [place for one in self.waiting for place in one.places]
        joined = replace(
            self.waiting[0], images=images, labels=labels, logits=logits, places=places
        )
        self.waiting = []
        super().update(joined)
