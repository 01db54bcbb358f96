"""Confusion matrix and the accuracy of the worst class."""

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import ClassCounts
from smmix_pl.metrics.class_counts import MAX_CLASSES
from smmix_pl.module import SMMixModule
from smmix_pl.plots.confusion import confused_pairs, confusion_matrix
from smmix_pl.runs.results import EvalResult

MAX_MATRIX_CLASSES = 20
"""Largest readable confusion matrix; with more classes, the most confused pairs are drawn."""


class PerClassMetrics(Evaluation):
    """Draws the confusion matrix, or the most confused pairs if there are many classes.

    Logged keys:
        `test/worst_class_top1`: Accuracy of the worst class, in [0, 1].
    """

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the counts.

        Raises:
            InputError: There are too many classes for a matrix.
        """
        if model.num_classes > MAX_CLASSES:
            raise InputError(
                f"trainer.callbacks: PerClassMetrics supports at most {MAX_CLASSES} classes, and "
                f"the model has {model.num_classes}. Remove it."
            )
        self.counts = on_device(ClassCounts(model.num_classes), model)
        self.names = require_image_data(trainer).class_names

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self.counts.update(batch.logits, batch.classes)

    def compute(self, images: int) -> EvalResult:
        """Return the accuracy of the worst class that has images."""
        self.confusion = self.counts.compute().cpu()
        seen = self.confusion.sum(dim=1)
        recall = self.confusion.diagonal()[seen > 0] / seen[seen > 0]
        worst = float(recall.min()) if len(recall) else float("nan")
        return EvalResult({"of": "classes with images"}, images, {"worst_class_top1": worst})

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the confusion matrix, or the most confused pairs."""
        confusion = self.confusion.numpy()
        draw = confusion_matrix if len(confusion) <= MAX_MATRIX_CLASSES else confused_pairs
        return {"confusion": draw(confusion, self.names)}
