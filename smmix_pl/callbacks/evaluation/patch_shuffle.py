"""Robustness to patch shuffling: accuracy without the spatial order."""

from collections.abc import Sequence

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_curves
from smmix_pl.robustness.patches import random_order, shuffle_patches
from smmix_pl.runs.results import Curve, EvalResult

PUBLISHED = (2, 4, 8, 14)


class PatchShuffle(Evaluation):
    """Test accuracy on images cut into a grid of shuffled tiles (Naseer et al., 2021).

    The permutation of an image depends only on the seed and its place in the test set.

    Logged keys:
        `test/shuffle_4`: Accuracy with a grid of 4 x 4 tiles.

    Args:
        grids: Numbers of tiles per side. `null` uses those of 2, 4, 8 and 14 that divide the image.
        seed: Seed of the permutations.
    """

    def __init__(self, grids: Sequence[int] | None = None, seed: int = 0) -> None:
        if grids is not None and not grids:
            raise InputError("PatchShuffle.grids=[]: empty. Set at least one grid, or null.")
        self.grids = None if grids is None else sorted(set(grids))
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the accuracies.

        Raises:
            InputError: A grid does not divide the image.
        """
        height, width = require_image_data(trainer).image_size
        fitting = [n for n in self.grids or PUBLISHED if n > 0 and not (height % n or width % n)]
        for grid in self.grids or ():
            if grid not in fitting:
                raise InputError(
                    f"PatchShuffle.grids={grid}: does not divide the image of {height} x {width} "
                    "pixels. Choose divisors of both sides."
                )
        self.fitting, self.passes = fitting, len(fitting)
        self.accuracy = on_device(SweepAccuracy(1 + len(fitting)), model)

    def update(self, batch: EvalBatch) -> None:
        """Evaluate a batch with every grid."""
        self.accuracy.update(0, batch.logits, batch.labels)
        for condition, side in enumerate(self.fitting, start=1):
            order = random_order((side, side), self.seed, batch.places).to(batch.images.device)
            shuffled = shuffle_patches(batch.images, order)
            self.accuracy.update(condition, batch.logits_of(shuffled), batch.labels)

    def compute(self, images: int) -> EvalResult:
        """Return the accuracy with each grid; x = 0 is the unshuffled image."""
        curve = Curve([0.0, *map(float, self.fitting)], self.accuracy.compute())
        return EvalResult({"seed": self.seed}, images, curves={"shuffle": curve})

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the accuracy curve; it starts at the unshuffled image, a grid of 1 x 1."""
        curve = result.curves["shuffle"]
        from_one = Curve([1.0, *curve.x[1:]], curve.y)
        label = "Shuffled tiles per side"
        return {"shuffle": accuracy_curves({"": [from_one]}, "Robustness to shuffling", label)}
