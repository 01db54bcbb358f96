"""Robustness to occlusion: accuracy with patches of the image dropped."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.checks import in_range, one_of
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.plots import accuracy_curves
from smmix_pl.robustness.patches import (
    Fill,
    attention_order,
    filling,
    holes,
    patch_grid,
    random_order,
)
from smmix_pl.runs.results import Curve, EvalResult

Drop = Literal["random", "salient", "non-salient", "shifted"]
Pattern = Literal["image", "batch"]

PUBLISHED_GRID = 14
"""Patches per side in the published protocol: 16 pixels each at an image size of 224."""
MIN_PATCH = 4
"""Smallest default patch in pixels."""


class Occlusion(Evaluation):
    """Test accuracy under PatchDrop (Naseer et al., 2021): the curve, and the area under it.

    A fraction of the patches of each image is set to 0 after normalization. All ratios are
    evaluated on each batch as it passes, so images are read once. Random patches depend only on the
    seed and the place of the image in the test set.

    By default, the patch size follows from the image size alone, so that all models are evaluated
    with the same holes: 16 pixels at 224, as published, and 4 pixels at 32 and 24. See
    `default_patch_size`.

    Logged keys:
        `test/occlusion_25`: Accuracy with 25% of the patches dropped at random.
        `test/occlusion_auc_75`: Mean accuracy over 0 to 75%, by the trapezoidal rule.

    Settings other than the defaults are part of the key, because such values are not comparable:
    `test/occlusion_salient_25`, `test/occlusion_noise_batch_patch8_25`.

    Args:
        ratios: Fractions of patches to drop, in [0.001, 1].
        patch_size: Side of a dropped patch in pixels. `null` uses `default_patch_size`. `model`
            uses the patch or last-stage token of the model (`test/occlusion_model_patch_25`); such
            values are comparable only between models with the same one.
        drops: Choice of patches: `random`; `salient`, most attended by the model first;
            `non-salient`, least attended first; `shifted`, random with the grid shifted by half a
            patch.
        fill: `zero`, `mean` (mean color of the image), `noise` or `blur`; see `filling`.
        pattern: Random patches per `image`, or the same for all images of a `batch`, as in the
            OpenMixup toolbox.
        seed: Seed of the random patches: with the same seed, two models see the same holes.
    """

    def __init__(
        self,
        ratios: Sequence[float] = (0.25, 0.5, 0.75),
        patch_size: int | Literal["model"] | None = None,
        drops: Sequence[Drop] = ("random",),
        fill: Fill = "zero",
        pattern: Pattern = "image",
        seed: int = 0,
    ) -> None:
        for ratio in ratios:
            in_range("Occlusion.ratios", ratio, 0.001, 1, "0.5 drops half of the patches")
        for drop in drops:
            one_of("Occlusion.drops", drop, get_args(Drop))
        if isinstance(patch_size, str):
            one_of("Occlusion.patch_size", patch_size, ("model",))
        one_of("Occlusion.fill", fill, get_args(Fill))
        one_of("Occlusion.pattern", pattern, get_args(Pattern))
        for name, values in (("ratios", ratios), ("drops", drops)):
            if not values:
                raise InputError(f"Occlusion.{name}=[]: empty. Set at least one.")
        self.ratios = sorted(set(ratios))
        self.patch_size = patch_size
        self.drops = list(drops)
        self.fill: Fill = fill
        self.pattern = pattern
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the accuracies: one for the complete image, and one for each drop and ratio."""
        data = require_image_data(trainer)
        if self.patch_size == "model":
            self.grid = model.backbone.grid
        else:
            default = default_patch_size(data.image_size)
            side = default if self.patch_size is None else self.patch_size
            self.grid = patch_grid(data.image_size, side)
        self.patch = data.image_size[0] // self.grid[0]
        self.batch_size = data.batch_size
        self.passes = len(self.drops) * len(self.ratios)
        self.accuracy = on_device(SweepAccuracy(1 + self.passes), model)

    def update(self, batch: EvalBatch) -> None:
        """Evaluate a batch under every drop at every ratio."""
        images, labels = batch.images, batch.labels
        size = (images.shape[2], images.shape[3])
        self.accuracy.update(0, batch.logits, labels)
        fill = filling(self.fill, images, self.patch, self.seed, batch.places)
        condition = 1
        for drop, order in self._orders(batch).items():
            for ratio in self.ratios:
                hole = holes(order, ratio, size, drop == "shifted")
                occluded = fill.where(hole[:, None], images)
                self.accuracy.update(condition, batch.logits_of(occluded), labels)
                condition += 1

    def compute(self, images: int) -> EvalResult:
        """Return a curve for each drop, and the area under it."""
        complete, *occluded = self.accuracy.compute()
        x = [0.0, *(round(100 * ratio, 6) for ratio in self.ratios)]
        width = len(self.ratios)
        curves = {
            self._name(drop): Curve(x, [complete, *occluded[i * width : (i + 1) * width]])
            for i, drop in enumerate(self.drops)
        }
        areas = {f"{name}_auc_{x[-1]:g}": curve.area for name, curve in curves.items()}
        protocol = {
            "patch_size": self.patch,
            "grid": list(self.grid),
            "fill": self.fill,
            "pattern": self.pattern,
            "seed": self.seed,
            "auc": f"trapezoids over {len(x)} points",
        }
        if self.pattern == "batch":
            protocol["batch_size"] = self.batch_size
        return EvalResult(protocol, images, areas, curves)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return all curves in one figure."""
        curves: dict[str, list[Curve]] = {
            drop: [result.curves[self._name(drop)]] for drop in self.drops
        }
        x_label = f"Patches dropped (%), {self.patch} x {self.patch} pixels each"
        title = "Robustness to occlusion"
        title += "" if self.fill == "zero" else f"\nfilled with {self.fill}"
        title += "" if self.pattern == "image" else "\nthe same patches in a batch"
        return {self._name("random"): accuracy_curves(curves, title, x_label)}

    def _orders(self, batch: EvalBatch) -> dict[Drop, Tensor]:
        """Return the order in which each drop removes patches, `(B, P_h, P_w)`."""
        places = batch.places
        if self.pattern == "batch":
            places = [places[0]] * len(places)
        orders: dict[Drop, Tensor] = {}
        by_attention = {"salient", "non-salient"} & set(self.drops)
        attention = batch.attention() if by_attention else None
        for drop in self.drops:
            if attention is not None and drop in by_attention:
                orders[drop] = attention_order(attention, self.grid, drop == "salient")
            else:
                order = random_order(self.grid, self.seed, places)
                orders[drop] = order.to(batch.images.device)
        return orders

    def _name(self, drop: Drop) -> str:
        """Return the name of a curve, with every setting that is not the default."""
        settings = [
            *([] if drop == "random" else [drop.replace("-", "_")]),
            *([] if self.fill == "zero" else [self.fill]),
            *([] if self.pattern == "image" else [self.pattern]),
            *(["model_patch"] if self.patch_size == "model" else []),
            *([f"patch{self.patch_size}"] if isinstance(self.patch_size, int) else []),
        ]
        return "_".join(["occlusion", *settings])


def default_patch_size(image_size: tuple[int, int]) -> int:
    """Return the side of the dropped patches in pixels for an image size (H, W).

    Of all sides that divide the image, this is the one whose grid is closest to the published
    14 x 14: 16 pixels at 224, 24 at 384, 32 at 448. It is at least 4 pixels, the patch of models
    for small images (4 pixels at 24, 28, 32 and 64). Smaller holes would cover parts of tokens and
    act like pixel noise.
    """
    common = math.gcd(*image_size)
    sides = [side for side in range(MIN_PATCH, common + 1) if common % side == 0]
    published = math.sqrt(math.prod(image_size)) / PUBLISHED_GRID
    return min(sides or [common], key=lambda side: abs(math.log(side / published)))
