"""Which classes the model confuses, and of which it is too sure or not sure enough."""

import numpy as np
import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.errors import InputError
from smmix_pl.metrics import ClassCounts
from smmix_pl.metrics.class_counts import MOST_CLASSES
from smmix_pl.module import SMMixModule
from smmix_pl.plots.confusion import confused_pairs, confusion_matrix, worst_calibrated
from smmix_pl.runs.results import EvalResult

MATRIX = 20
"""A matrix of more classes than this cannot be read; the most confused pairs are drawn instead."""


class PerClassMetrics(Evaluation):
    """Draws which classes are confused, and of which the model is too sure or not sure enough.

    The confusion matrix, or of many classes the most confused pairs; and the worst-calibrated
    predicted classes. Logs the accuracy of the worst class, as ``test/worst_class_top1``.
    """

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew.

        Raises:
            InputError: There are too many classes for a matrix.
        """
        if model.num_classes > MOST_CLASSES:
            raise InputError(
                f"smmix_pl.callbacks.Classes counts up to {MOST_CLASSES} classes, not "
                f"{model.num_classes}; take it out of trainer.callbacks"
            )
        self.counts = on_device(ClassCounts(model.num_classes), model)
        self.names: list[str] = trainer.datamodule.class_names  # type: ignore[attr-defined]

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self.counts.update(batch.logits, batch.classes)

    def compute(self, images: int) -> EvalResult:
        """The worst class among those that were seen."""
        self.confusion, self.confidence = (state.cpu() for state in self.counts.compute())
        seen = self.confusion.sum(dim=1)
        recall = self.confusion.diagonal()[seen > 0] / seen[seen > 0]
        worst = float(recall.min()) if len(recall) else float("nan")
        return EvalResult({"of": "classes with images"}, images, {"worst_class_top1": worst})

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The confusions, and the calibration of each predicted class."""
        confusion = self.confusion.numpy()
        drawn = confusion_matrix if len(confusion) <= MATRIX else confused_pairs
        predicted = self.confusion.sum(dim=0)
        often = torch.where(predicted >= 5)[0]  # of fewer predictions, a share says nothing
        mean = (self.confidence / predicted.clamp(min=1))[often].numpy()
        right = (self.confusion.diagonal() / predicted.clamp(min=1))[often].numpy()
        names = np.array(self.names)[often.numpy()]
        figures = {"confusion": drawn(confusion, self.names)}
        if len(often):
            figures["worst_calibrated"] = worst_calibrated(names, mean, right)
        return figures
