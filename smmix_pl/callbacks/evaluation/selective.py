"""Selective prediction and conformal prediction sets: what a model's confidence is good for."""

from collections.abc import Sequence
from itertools import islice
from typing import get_args

import numpy as np
import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import ConformalScores, RiskCoverage, prediction_sets, true_classes
from smmix_pl.metrics.conformal import Score
from smmix_pl.module import SMMixModule
from smmix_pl.plots import risk_coverage_curves, set_size_curves
from smmix_pl.robustness.patches import place_generator
from smmix_pl.runs.results import Curve, EvalResult

COVERAGES = (50, 60, 70, 80, 90, 95)
"""Percentages of the images at which the error is logged."""
DRAWN = 200
"""Number of points of a drawn curve."""
LEVELS = np.linspace(0.5, 0.99, 50)
"""Coverages of the drawn sets."""


class SelectivePrediction(Evaluation):
    """Draws the risk-coverage curve: the error if only the most confident images are classified.

    Logged keys, all in [0, 1]:
        `test/aurc`: Area under the curve, the mean error over all coverages.
        `test/e_aurc`: AURC minus that of the same predictions in a perfect order.
        `test/risk_80`: Error of the 80% most confident images; also 50, 60, 70, 90, and 95.
    """

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the metric."""
        self.metric = on_device(RiskCoverage(), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self.metric.update(batch.logits, batch.classes)

    def compute(self, images: int) -> EvalResult:
        """Return AURC, E-AURC, and the error at several coverages."""
        found = self.metric.compute()
        coverage = np.linspace(1 / DRAWN, 1, DRAWN)
        self.drawn = {
            name: Curve([*(100 * coverage)], [values.at(one) for one in coverage])
            for name, values in (
                ("Model", found),
                ("Perfect order", found._replace(risk=found.perfect_risk)),
            )
        }
        curve = Curve([*map(float, COVERAGES)], [found.at(one / 100) for one in COVERAGES])
        scalars = {"aurc": found.aurc, "e_aurc": found.e_aurc}
        protocol = {"confidence": "largest softmax probability"}
        return EvalResult(protocol, images, scalars, {"risk": curve})

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the risk-coverage curve."""
        title = f"Selective prediction: AURC {result.scalars['aurc']:.2%}"
        return {"risk": risk_coverage_curves({k: [v] for k, v in self.drawn.items()}, title)}


class ConformalSets(Evaluation):
    """Coverage and size of split conformal prediction sets.

    The sets are calibrated on the validation images of the run and evaluated on the test images. If
    the validation images are those of the test, as in ImageNet, each half of the test images, by
    even and odd places, is calibrated on the other half. Best checkpoints are selected on the
    validation images, so that the guarantee is exact only if few were compared.

    Logged keys, with the target 90 for an alpha of 0.1, and with the scores `lac` and `aps`:
        `test/conformal_coverage_lac_90`: Fraction of sets that hold the true class, in [0, 1].
        `test/conformal_size_lac_90`: Mean number of classes in a set.

    Args:
        alpha: Accepted probabilities that a set misses the true class, each in (0, 1).
        seed: Seed of the random part of the score APS.
    """

    def __init__(self, alpha: Sequence[float] = (0.1,), seed: int = 0) -> None:
        if not alpha:
            raise InputError("ConformalSets.alpha=[]: empty. Set at least one.")
        for one in alpha:
            if not 0 < one < 1:
                raise InputError(f"ConformalSets.alpha={one}: must be in (0, 1). 0.1 is usual.")
        self.alpha = sorted(set(alpha))
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Compute the scores of the validation images."""
        self.scores = _scores(model)
        self.calibration: dict[Score, ConformalScores] | None = None
        data = require_image_data(trainer)
        loader = data.calibration_dataloader()
        if loader is None:
            return
        self.calibration, places = _scores(model), loader.good_places()
        for batch in loader:
            moved = data.transfer_batch_to_device(batch, model.device, 0)
            images, labels = data.on_after_batch_transfer(moved, 0)
            with trainer.precision_plugin.forward_context():
                logits = model(images)
            classes = true_classes(labels, logits)
            self._add(self.calibration, logits, classes, list(islice(places, len(images))))

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self._add(self.scores, batch.logits, batch.classes, batch.places)

    def compute(self, images: int) -> EvalResult:
        """Return coverage and mean size of the sets."""
        scalars: dict[str, float] = {}
        self.drawn: dict[str, list[tuple[float, float]]] = {}
        for score, metric in self.scores.items():
            counts = metric.compute()
            known = counts.flip(0)
            if self.calibration is not None:
                known = self.calibration[score].compute()
            for alpha in self.alpha:
                held, size = prediction_sets(known, counts, alpha)
                level = f"{score}_{round(100 * (1 - alpha), 6):g}"
                scalars |= {f"conformal_coverage_{level}": held, f"conformal_size_{level}": size}
            self.drawn[score.upper()] = [
                prediction_sets(known, counts, 1 - level) for level in LEVELS
            ]
        protocol = {
            "calibrated_on": "the other half of the test images"
            if self.calibration is None
            else "validation images",
            "calibration_images": int(known[:, 0].sum()),
            "seed": self.seed,
        }
        return EvalResult(protocol, images, scalars)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return coverage and size of the sets by their target."""
        return {"conformal": set_size_curves(LEVELS, self.drawn)}

    def _add(
        self,
        scores: dict[Score, ConformalScores],
        logits: Tensor,
        classes: Tensor,
        places: list[int],
    ) -> None:
        number = torch.tensor(places)
        half = number % 2 if self.calibration is None else torch.zeros_like(number)
        drawn = [torch.rand((), generator=place_generator(self.seed, place)) for place in places]
        for metric in scores.values():
            metric.update(logits, classes, half, torch.stack(drawn))


def _scores(model: SMMixModule) -> dict[Score, ConformalScores]:
    return {score: on_device(ConformalScores(score), model) for score in get_args(Score)}
