"""The errors that the model is surest of, with their images."""

from typing import Any, NamedTuple

import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation
from smmix_pl.data.transforms import denormalize
from smmix_pl.errors import InputError
from smmix_pl.module import SMMixModule
from smmix_pl.plots.error_gallery import errors_figure
from smmix_pl.runs.results import EvalResult


class WrongImage(NamedTuple):
    """An image that was taken for something else.

    Attributes:
        confidence: In the predicted class, in [0, 1].
        place: Index in the test set.
        true: Its class.
        predicted: What it was taken for.
        image: ``(3, H, W)``, normalized, on the CPU.
    """

    confidence: float
    place: int
    true: int
    predicted: int
    image: Tensor


class ConfidentErrors(Evaluation):
    """Draws the wrong predictions of highest confidence, and gives them to W&B as a table.

    Args:
        count: How many; at least 1. No more than these are kept in memory.
    """

    def __init__(self, count: int = 12) -> None:
        if count < 1:
            raise InputError(f"ConfidentErrors' count is {count}; it must be at least 1")
        self.count = count
        self.worst: list[WrongImage] = []

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        self.worst = []
        self._trainer = trainer

    def update(self, batch: EvalBatch) -> None:
        """Keep the batch's errors that belong to the worst so far."""
        confidence, predicted = batch.logits.float().softmax(dim=1).max(dim=1)
        wrong = torch.where(predicted != batch.classes, confidence, -1.0)
        order = wrong.argsort(descending=True, stable=True)[: self.count].tolist()
        found = [
            WrongImage(
                float(wrong[i]),
                batch.places[i],
                int(batch.classes[i]),
                int(predicted[i]),
                batch.images[i].float().cpu(),
            )
            for i in order
            if wrong[i] >= 0
        ]
        self.worst = _worst(self.worst + found, self.count)

    def compute(self, images: int) -> EvalResult:
        """Nothing to log; the worst of all ranks come together here."""
        if self._trainer.world_size > 1:
            every: list[Any] = [None] * self._trainer.world_size
            torch.distributed.all_gather_object(every, self.worst)
            self.worst = _worst([one for rank in every for one in rank], self.count)
        return EvalResult({}, images)

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """The images with what they are and what they were taken for."""
        if not self.worst:
            return {}
        return {"errors": errors_figure(self._pictures(), self._errors())}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give them to W&B, as a table beside the picture."""
        super().on_test_end(trainer, pl_module)
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        columns = ["image", "true class", "predicted class", "confidence", "place in the test set"]
        for logger in trainer.loggers if trainer.is_global_zero and self.worst else []:
            if isinstance(logger, WandbLogger):
                rows = [
                    [
                        wandb.Image(picture.permute(1, 2, 0).numpy()),
                        *(names[one.true], names[one.predicted], one.confidence, one.place),
                    ]
                    for picture, one in zip(self._pictures(), self.worst, strict=True)
                ]
                logger.log_table("test/confident_errors", columns=columns, data=rows)

    def _pictures(self) -> list[Tensor]:
        data: Any = self._trainer.datamodule  # type: ignore[attr-defined]
        return [denormalize(one.image, data.mean, data.std) for one in self.worst]

    def _errors(self) -> list[tuple[str, str, float]]:
        names = self._trainer.datamodule.class_names  # type: ignore[attr-defined]
        return [(names[one.true], names[one.predicted], one.confidence) for one in self.worst]


def _worst(wrong: list[WrongImage], count: int) -> list[WrongImage]:
    return sorted(wrong, key=lambda one: (-one.confidence, one.place))[:count]
