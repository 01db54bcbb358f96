"""Base class of evaluations: Lightning's hooks become `reset`, `update` and `compute`.

Shapes: B batch, H W pixels, K classes, G_h G_w token grid.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from smmix_pl.base_module import BaseModule
from smmix_pl.callbacks.output.figure_saver import save_figure
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import OUTLIER, true_classes
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult

AnyMetric = TypeVar("AnyMetric", bound=Metric)


@dataclass(frozen=True)
class EvalBatch:
    """One evaluated batch, and the model that evaluated it.

    Attributes:
        images: Normalized images, `(B, 3, H, W)`.
        labels: Labels from the dataset: class indices `(B,)`, or `(B, K)` bool, true for each
            correct class.
        logits: Logits of the model, `(B, K)`; -inf for classes that the dataset excludes.
        places: Index of each image in the dataset, over all ranks.
        model: Model in eval mode, with the EMA weights if there are any.
        trainer: Trainer that runs the evaluation.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    places: list[int]
    model: SMMixModule
    trainer: Trainer

    @property
    def classes(self) -> Tensor:
        """True classes `(B,)`; of several correct ones, the one with the highest logit."""
        return true_classes(self.labels, self.logits)

    @property
    def data(self) -> ImageData:
        """Datamodule that the images come from."""
        return require_image_data(self.trainer)

    def without_outliers(self) -> "EvalBatch":
        """Return the batch without the images that belong to no class."""
        return self._only(self.classes != OUTLIER)

    def at(self, places: Collection[int]) -> "EvalBatch":
        """Return the batch without the images at other places."""
        kept = [place in places for place in self.places]
        return self._only(torch.tensor(kept, device=self.images.device))

    def _only(self, kept: Tensor) -> "EvalBatch":
        places = [place for place, keep in zip(self.places, kept.tolist(), strict=True) if keep]
        images, labels, logits = self.images[kept], self.labels[kept], self.logits[kept]
        return replace(self, images=images, labels=labels, logits=logits, places=places)

    def logits_of(self, images: Tensor) -> Tensor:
        """Return the logits of other images, in the precision of the test."""
        with self.trainer.precision_plugin.forward_context():
            return self.model(images)

    def attention(self) -> Tensor:
        """Return the attention that each token of the images receives, `(B, G_h, G_w)`."""
        with self.trainer.precision_plugin.forward_context():
            return self.model.backbone.guide(self.images).attention


class Evaluation(Callback, ABC):
    """Evaluates every batch of a validation or test as it passes.

    Images are read once, regardless of the number of evaluations. At the end of a stage the metrics
    are logged. After a test, the result is also kept for the callbacks that write or print it, and
    its figures are saved.
    """

    stages: ClassVar[tuple[str, ...]] = ("test",)
    needs_one_class: ClassVar[bool] = True
    """If True, models that predict no class per image are rejected."""
    includes_outliers: ClassVar[bool] = False
    """If True, images that belong to no class are evaluated as well."""
    places: Collection[int] | None = None
    """Places of the images that are evaluated; None for all. Final after `reset`."""
    passes: int = 0
    """Forward passes per image, beside the one over the plain image. Final after `reset`."""
    result: EvalResult | None = None
    """Result of the last test."""
    _good_places: Iterator[int]
    _images = 0

    @abstractmethod
    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the accumulated state."""

    @abstractmethod
    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""

    @abstractmethod
    def compute(self, images: int) -> EvalResult:
        """Return the result over all ranks.

        Called on every rank, also on one that evaluated no image, because metrics are reduced here.

        Args:
            images: Number of evaluated images on all ranks.
        """

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return figures of a test result, by name without the stage."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the model classifies.

        Raises:
            InputError: It does not predict one class per image.
        """
        known = isinstance(pl_module, BaseModule)
        if self.needs_one_class and known and not pl_module.has_one_class:
            raise InputError(
                f"trainer.callbacks: {type(self).__name__} does not support {pl_module.task}, "
                "which predicts no class per image. Remove it."
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset, if the stage is evaluated."""
        if self._evaluates(trainer):
            self._images = 0
            self.result = None
            self.reset(trainer, cast(SMMixModule, pl_module))
            require_image_data(trainer)  # whose loaders know the places of skipped images
            loader: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
            self._good_places = loader.good_places()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, if the stage is evaluated."""
        if not self._evaluates(trainer):
            return
        images, labels = batch
        places = list(islice(self._good_places, len(images)))
        model = cast(SMMixModule, pl_module)
        evaluated = EvalBatch(images, labels, outputs["logits"], places, model, trainer)
        if require_image_data(trainer).has_outliers and not self.includes_outliers:
            evaluated = evaluated.without_outliers()
        if self.places is not None:
            evaluated = evaluated.at(self.places)
        if evaluated.places:
            self.update(evaluated)
        self._images += len(evaluated.places)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics."""
        if "val" in self.stages:
            self._log(pl_module, "val", self._compute(trainer).metrics)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics and keep the result."""
        if "test" in self.stages:
            self.result = self._compute(trainer)
            self._log(pl_module, "test", self._unique_metrics(trainer, self.result))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the figures; of two with one name, that of the last evaluation.

        The first evaluation saves the figures of all.
        """
        evaluations = finished_evaluations(trainer)
        if evaluations[:1] != [self] or not trainer.is_global_zero:
            return
        figures: dict[str, tuple[Figure, int]] = {}
        for evaluation in evaluations:
            result = cast(EvalResult, evaluation.result)
            drawn = evaluation.figures(result).items()
            figures |= {name: (figure, result.images) for name, figure in drawn}
        for name, (figure, images) in figures.items():
            save_figure(trainer, pl_module, f"test/{name}", figure, images)

    def _evaluates(self, trainer: Trainer) -> bool:
        return ("test" if trainer.testing else "val") in self.stages

    def _compute(self, trainer: Trainer) -> EvalResult:
        images = torch.tensor(float(self._images), device=trainer.strategy.root_device)
        total = int(trainer.strategy.reduce(images, reduce_op="sum"))
        with warnings.catch_warnings():
            # true on a rank whose images were all skipped as corrupt; its states are zeros
            warnings.filterwarnings("ignore", ".*was called before the ``update`` method")
            return self.compute(total)

    def _unique_metrics(self, trainer: Trainer, result: EvalResult) -> dict[str, float]:
        """Return the metrics that no earlier evaluation logged; the first of two values counts."""
        logged: dict[str, float] = {}
        for evaluation in finished_evaluations(trainer):
            if evaluation is not self:
                logged |= cast(EvalResult, evaluation.result).metrics
        for name, value in result.metrics.items():
            if name in logged and abs(logged[name] - value) > 1e-6:
                rank_zero_warn(
                    f"trainer.callbacks: two evaluations log test/{name}. {logged[name]:.4f} is "
                    f"kept; {value:.4f} was measured with {result.protocol}. Test them one at a "
                    "time."
                )
        return {name: value for name, value in result.metrics.items() if name not in logged}

    def _log(self, pl_module: LightningModule, stage: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            # already reduced over the ranks; their mean is the same value
            pl_module.log(f"{stage}/{name}", value, sync_dist=True)


def finished_evaluations(trainer: Trainer) -> list[Evaluation]:
    """Return the evaluations in trainer.callbacks that have a test result, in their order."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [one for one in callbacks if isinstance(one, Evaluation) and one.result is not None]


def on_device(metric: AnyMetric, model: LightningModule) -> AnyMetric:
    """Return the metric on the device of the model, so that logits need not be copied."""
    # Apple GPUs have no float64
    return metric.to("cpu" if model.device.type == "mps" else model.device)
