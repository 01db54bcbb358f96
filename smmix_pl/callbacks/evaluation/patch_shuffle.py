"""Robustness to patch shuffling: what is left of the accuracy without the spatial order."""

from collections.abc import Sequence

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_curves
from smmix_pl.robustness.patches import random_order, shuffle_patches
from smmix_pl.runs.results import Curve, EvalResult

PUBLISHED = (2, 4, 8, 14)


class PatchShuffle(Evaluation):
    """Test accuracy with the image cut into a grid and its tiles shuffled (Naseer et al., 2021).

    Logs ``test/shuffle_4`` for a grid of 4 x 4. The permutation of an image depends only on the
    seed and its place in the test set.

    Args:
        grids: Tiles along a side; null takes those of 2, 4, 8 and 14 that divide the image.
        seed: Chooses the permutations.
    """

    def __init__(self, grids: Sequence[int] | None = None, seed: int = 0) -> None:
        if grids is not None and not grids:
            raise InputError("PatchShuffle has no grids; give at least one, or null")
        self.grids = None if grids is None else sorted(set(grids))
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        height, width = trainer.datamodule.image_size  # type: ignore[attr-defined]
        fitting = [n for n in self.grids or PUBLISHED if n > 0 and not (height % n or width % n)]
        for grid in self.grids or ():
            if grid not in fitting:
                raise InputError(
                    f"PatchShuffle's grid of {grid} x {grid} does not divide images of "
                    f"{height} x {width} pixels; choose divisors of both"
                )
        self.fitting = fitting
        self.accuracy = on_device(SweepAccuracy(1 + len(fitting)), model)

    def update(self, batch: EvalBatch) -> None:
        """Evaluate one batch at every grid."""
        self.accuracy.update(0, batch.logits, batch.labels)
        for condition, side in enumerate(self.fitting, start=1):
            order = random_order((side, side), self.seed, batch.places).to(batch.images.device)
            shuffled = shuffle_patches(batch.images, order)
            self.accuracy.update(condition, batch.logits_of(shuffled), batch.labels)

    def compute(self, images: int) -> EvalResult:
        """The accuracy at each grid; 0 stands for the whole image."""
        curve = Curve([0.0, *map(float, self.fitting)], self.accuracy.compute())
        return EvalResult({"seed": self.seed}, images, curves={"shuffle": curve})

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The curve, from the whole image, a grid of 1 x 1."""
        curve = report.curves["shuffle"]
        from_whole = Curve([1.0, *curve.x[1:]], curve.y)
        label = "tiles along a side"
        return {"shuffle": accuracy_curves({"": from_whole}, "Robustness to shuffling", label)}
