"""Most confident errors, with their images."""

from typing import Any, NamedTuple

import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation
from smmix_pl.checks import in_range
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.data.transforms import denormalize
from smmix_pl.module import SMMixModule
from smmix_pl.plots.error_gallery import error_gallery
from smmix_pl.runs.results import EvalResult


class WrongImage(NamedTuple):
    """Misclassified image.

    Attributes:
        confidence: Confidence in the predicted class, in [0, 1].
        place: Index in the test set.
        true: True class.
        predicted: Predicted class.
        image: Normalized image on the CPU, `(3, H, W)`.
    """

    confidence: float
    place: int
    true: int
    predicted: int
    image: Tensor


class ConfidentErrors(Evaluation):
    """Draws the most confident errors, and logs them to W&B as a table.

    Args:
        count: Number of errors, at least 1. No more images than these are kept in memory.
    """

    def __init__(self, count: int = 12) -> None:
        in_range("ConfidentErrors.count", count, 1)
        self.count = count
        self.worst: list[WrongImage] = []

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Drop the errors."""
        self.worst = []
        self._trainer = trainer

    def update(self, batch: EvalBatch) -> None:
        """Keep the errors of a batch that are among the most confident so far."""
        confidence, predicted = batch.logits.float().softmax(dim=1).max(dim=1)
        classes = batch.classes
        wrong = torch.where(predicted != classes, confidence, -1.0)
        order = wrong.argsort(descending=True, stable=True)[: self.count]
        columns = (values[order].tolist() for values in (wrong, classes, predicted))
        least = self.worst[-1].confidence if len(self.worst) == self.count else 0.0
        errors = [
            WrongImage(value, batch.places[i], true, found, batch.images[i].float().cpu())
            for i, value, true, found in zip(order.tolist(), *columns, strict=True)
            if value >= least
        ]
        self.worst = _most_confident(self.worst + errors, self.count)

    def compute(self, images: int) -> EvalResult:
        """Collect the errors of all ranks; there is no metric."""
        if self._trainer.world_size > 1:
            gathered: list[Any] = [None] * self._trainer.world_size
            torch.distributed.all_gather_object(gathered, self.worst)
            errors = [error for rank in gathered for error in rank]
            self.worst = _most_confident(errors, self.count)
        return EvalResult({}, images)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return a gallery of the images with true and predicted class."""
        if not self.worst:
            return {}
        names = require_image_data(self._trainer).class_names
        errors = [(names[one.true], names[one.predicted], one.confidence) for one in self.worst]
        return {"errors": error_gallery(self._plain_images(), errors)}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the figures, and log the table to W&B."""
        super().on_test_end(trainer, pl_module)
        names = require_image_data(trainer).class_names
        columns = ["image", "true class", "predicted class", "confidence", "place in the test set"]
        for logger in trainer.loggers if trainer.is_global_zero and self.worst else []:
            if isinstance(logger, WandbLogger):
                rows = [
                    [
                        wandb.Image(image.permute(1, 2, 0).numpy()),
                        *(names[error.true], names[error.predicted]),
                        *(error.confidence, error.place),
                    ]
                    for image, error in zip(self._plain_images(), self.worst, strict=True)
                ]
                logger.log_table("test/confident_errors", columns=columns, data=rows)

    def _plain_images(self) -> list[Tensor]:
        data = require_image_data(self._trainer)
        return [denormalize(error.image, data.mean, data.std) for error in self.worst]


def _most_confident(errors: list[WrongImage], count: int) -> list[WrongImage]:
    return sorted(errors, key=lambda error: (-error.confidence, error.place))[:count]
