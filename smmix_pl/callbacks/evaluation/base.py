"""From Lightning's evaluation hooks to three methods: begin, measure, report."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from smmix_pl.callbacks.output.figure_saver import save_figure
from smmix_pl.metrics import OUTLIER, true_classes
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult

AnyMetric = TypeVar("AnyMetric", bound=Metric)


@dataclass(frozen=True)
class EvalBatch:
    """One evaluated batch, and the model that evaluated it.

    Attributes:
        images: ``(B, 3, H, W)``, normalized.
        labels: As the data gives them: class numbers ``(B,)``, or all that are right, ``(B, K)``
            bool.
        logits: The model's, ``(B, K)``; -inf for classes that the data leaves out.
        places: Each image's index in the data set, over all ranks.
        model: In eval mode; averaged weights are in place, if there are any.
        trainer: Where it runs.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    places: list[int]
    model: SMMixModule
    trainer: Trainer

    @property
    def classes(self) -> Tensor:
        """True classes, ``(B,)``; of several that are right, the likeliest."""
        return true_classes(self.labels, self.logits)

    def known(self) -> "EvalBatch":
        """Without the images that are of no class."""
        kept = self.classes != OUTLIER
        places = [place for place, keep in zip(self.places, kept.tolist(), strict=True) if keep]
        images, labels, logits = self.images[kept], self.labels[kept], self.logits[kept]
        return replace(self, images=images, labels=labels, logits=logits, places=places)

    def logits_of(self, images: Tensor) -> Tensor:
        """The model's logits of other images, in the precision that the test runs in."""
        with self.trainer.precision_plugin.forward_context():
            return self.model(images)

    def attention(self) -> Tensor:
        """How much the model attends to each token of the images, ``(B, G_h, G_w)``."""
        with self.trainer.precision_plugin.forward_context():
            return self.model.backbone.guide(self.images).attention


class Evaluation(Callback, ABC):
    """Measures something on every batch of an evaluation, as it passes.

    Data is read once, however many evaluations there are. After a stage, what was found is logged,
    kept in ``found`` for the callbacks that write and print it, and drawn (test only).
    """

    stages: ClassVar[tuple[str, ...]] = ("test",)
    measures_outliers: ClassVar[bool] = False
    """Whether images of no class are measured as well, where the data has such."""
    found: EvalResult | None = None
    """What the last test found."""
    _seen = 0
    _images = 0

    @abstractmethod
    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin a stage anew."""

    @abstractmethod
    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""

    @abstractmethod
    def compute(self, images: int) -> EvalResult:
        """What was found on so many images; runs on every rank, as metrics are summed here."""

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """Pictures of it, by name without the stage."""
        return {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if this stage is measured."""
        self._begin(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if this stage is measured."""
        self._begin(trainer, pl_module, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, if this stage is measured."""
        if "val" in self.stages:
            self._measure(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, if this stage is measured."""
        if "test" in self.stages:
            self._measure(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was found."""
        if "val" in self.stages:
            self._log(pl_module, "val", self.compute(self._all_images(trainer)).metrics)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and keep what was found."""
        if "test" in self.stages:
            self.found = self.compute(self._all_images(trainer))
            self._log(pl_module, "test", self._news(trainer, self.found))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first evaluation draws for all; of one name, the last one's, as overlays add it."""
        evaluations = found_by(trainer)
        if evaluations[:1] != [self] or not trainer.is_global_zero:
            return
        figures: dict[str, Figure] = {}
        for one in evaluations:
            figures |= one.figures(cast(EvalResult, one.found))
        for name, figure in figures.items():
            save_figure(trainer, f"test/{name}", figure)

    def _begin(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage in self.stages:
            self._seen = self._images = 0
            self.found = None
            self.reset(trainer, cast(SMMixModule, pl_module))

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any
    ) -> None:
        images, labels = batch
        first = self._seen
        # EvaluationSampler deals the images out to the ranks one by one
        places = [
            (first + i) * trainer.world_size + trainer.global_rank for i in range(len(images))
        ]
        self._seen += len(images)
        model = cast(SMMixModule, pl_module)
        evaluated = EvalBatch(images, labels, outputs["logits"], places, model, trainer)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if getattr(data, "has_outliers", False) and not self.measures_outliers:
            evaluated = evaluated.known()
        if evaluated.places:
            self.update(evaluated)
        self._images += len(evaluated.places)

    def _all_images(self, trainer: Trainer) -> int:
        images = torch.tensor(float(self._images), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(images, reduce_op="sum"))

    def _news(self, trainer: Trainer, found: EvalResult) -> dict[str, float]:
        """What no other evaluation has found; of two that differ in settings the first counts."""
        known: dict[str, float] = {}
        for one in found_by(trainer):
            if one is not self:
                known |= cast(EvalResult, one.found).metrics
        for name, value in found.metrics.items():
            if name in known and abs(known[name] - value) > 1e-6:
                rank_zero_warn(
                    f"two evaluations in trainer.callbacks give test/{name}: {known[name]:.4f}, "
                    f"which counts, and {value:.4f} by {found.protocol}; test them one at a time"
                )
        return {name: value for name, value in found.metrics.items() if name not in known}

    def _log(self, pl_module: LightningModule, stage: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            # summed over the ranks already, which the mean over them leaves as it is
            pl_module.log(f"{stage}/{name}", value, sync_dist=True)


def found_by(trainer: Trainer) -> list[Evaluation]:
    """The evaluations among a trainer's callbacks that found something, in their order."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [one for one in callbacks if isinstance(one, Evaluation) and one.found is not None]


def on_device(metric: AnyMetric, model: LightningModule) -> AnyMetric:
    """The metric where the model is, so that nothing waits for a copy of the logits."""
    # Apple's GPUs have no float64
    return metric.to("cpu" if model.device.type == "mps" else model.device)
