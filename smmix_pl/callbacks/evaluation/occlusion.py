"""Robustness to occlusion: accuracy when patches of the image are missing."""

from collections.abc import Sequence
from typing import Literal, get_args

from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
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


class Occlusion(Evaluation):
    """Test accuracy under PatchDrop (Naseer et al., 2021), its curve and the area under it.

    A share of the patches of each image is filled with 0 after normalisation. All ratios are
    evaluated on each batch as it passes, so images are read once. Random patches depend only on the
    seed and the image's place in the test set. Logs ``test/occlusion_25`` for 25% dropped at
    random, and ``test/occlusion_auc_75``: the mean accuracy from 0 to 75%, by trapezoids. Whatever
    differs from the defaults stands in the name, because such numbers do not compare:
    ``test/occlusion_salient_25``, ``test/occlusion_noise_batch_patch8_25``.

    Args:
        ratios: Shares of patches that are dropped, in (0, 1].
        patch_size: Side of a dropped patch in pixels; null takes the model's own patch.
        drops: Which patches: ``random``; ``salient``, those that the model attends to most, first;
            ``non-salient``, least first; ``shifted``, random with the grid half a patch off the
            model's.
        fill: ``zero``, ``mean`` (the image's mean color), ``noise`` or ``blur``; see `filling`.
        pattern: Random patches for each ``image``, or the same for all images of a ``batch``, as
            the OpenMixup toolbox does it.
        seed: Chooses the patches: two models with one seed see the same holes.
    """

    def __init__(
        self,
        ratios: Sequence[float] = (0.25, 0.5, 0.75),
        patch_size: int | None = None,
        drops: Sequence[Drop] = ("random",),
        fill: Fill = "zero",
        pattern: Literal["image", "batch"] = "image",
        seed: int = 0,
    ) -> None:
        for ratio in ratios:
            if not 0.001 <= ratio <= 1:
                raise InputError(f"Occlusion's ratio {ratio} is not in [0.001, 1]; 0.5 drops half")
        for name, value, known in (
            *(("drops", drop, get_args(Drop)) for drop in drops),
            ("fill", fill, get_args(Fill)),
            ("pattern", pattern, ("image", "batch")),
        ):
            if value not in known:
                raise InputError(f"Occlusion's {name} has {value!r}; it knows {', '.join(known)}")
        if not ratios or not drops:
            raise InputError("Occlusion has no ratios or no drops; give at least one of each")
        self.ratios = sorted(set(ratios))
        self.patch_size = patch_size
        self.drops = list(drops)
        self.fill: Fill = fill
        self.pattern = pattern
        self.seed = seed

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew; every drop and ratio keeps its own accuracy, and so does the whole image."""
        size = trainer.datamodule.image_size  # type: ignore[attr-defined]
        self.grid = model.backbone.grid
        if self.patch_size is not None:
            self.grid = patch_grid(size, self.patch_size)
        self.patch = size[0] // self.grid[0]
        self.batch_size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        conditions = 1 + len(self.drops) * len(self.ratios)
        self.accuracy = on_device(SweepAccuracy(conditions), model)

    def update(self, batch: EvalBatch) -> None:
        """Evaluate one batch under every drop at every ratio."""
        images, labels = batch.images, batch.labels
        self.accuracy.update(0, batch.logits, labels)
        fill = filling(self.fill, images, self.patch, self.seed, batch.places)
        condition = 1
        for drop, order in self._orders(batch).items():
            for ratio in self.ratios:
                hole = holes(order, ratio, images.shape[2:], drop == "shifted")  # type: ignore[arg-type]
                occluded = fill.where(hole[:, None], images)
                self.accuracy.update(condition, batch.logits_of(occluded), labels)
                condition += 1

    def compute(self, images: int) -> EvalResult:
        """A curve for each drop, and the area under it."""
        whole, *rest = self.accuracy.compute()
        x = [0.0, *(round(100 * ratio, 6) for ratio in self.ratios)]
        width = len(self.ratios)
        curves = {
            self._name(drop): Curve(x, [whole, *rest[i * width : (i + 1) * width]])
            for i, drop in enumerate(self.drops)
        }
        areas = {f"{name}_auc_{x[-1]:g}": curve.area for name, curve in curves.items()}
        protocol = {
            "patch_size": self.patch,
            "fill": self.fill,
            "pattern": self.pattern,
            "seed": self.seed,
            "auc": f"trapezoids over {len(x)} points",
        }
        if self.pattern == "batch":
            protocol["batch_size"] = self.batch_size
        return EvalResult(protocol, images, areas, curves)

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """All curves in one picture."""
        curves: dict[str, Curve] = {drop: report.curves[self._name(drop)] for drop in self.drops}
        x_label = f"patches dropped (%), {self.patch} x {self.patch} pixels each"
        title = "Robustness to occlusion"
        title += "" if self.fill == "zero" else f", {self.fill} in the holes"
        title += "" if self.pattern == "image" else ", the same holes in a batch"
        figure = accuracy_curves(curves, title, x_label)
        return {self._name("random"): figure}

    def _orders(self, batch: EvalBatch) -> dict[Drop, Tensor]:
        """For each drop the order in which patches go, ``(B, P_h, P_w)``."""
        places = batch.places
        if self.pattern == "batch":
            places = [places[0]] * len(places)
        orders: dict[Drop, Tensor] = {}
        attends = {"salient", "non-salient"} & set(self.drops)
        attention = batch.attention() if attends else None
        for drop in self.drops:
            if attention is not None and drop in attends:
                orders[drop] = attention_order(attention, self.grid, drop == "salient")
            else:
                order = random_order(self.grid, self.seed, places)
                orders[drop] = order.to(batch.images.device)
        return orders

    def _name(self, drop: Drop) -> str:
        """A curve's name: occlusion, and what is unusual about it."""
        unusual = [
            *([] if drop == "random" else [drop.replace("-", "_")]),
            *([] if self.fill == "zero" else [self.fill]),
            *([] if self.pattern == "image" else [self.pattern]),
            *([] if self.patch_size is None else [f"patch{self.patch_size}"]),
        ]
        return "_".join(["occlusion", *unusual])
