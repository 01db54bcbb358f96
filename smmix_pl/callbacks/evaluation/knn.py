"""Nearest-neighbor classification of frozen features."""

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.utilities.distributed import gather_all_tensors

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.checks import in_range, positive
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.metrics import SweepAccuracy
from smmix_pl.metrics.nearest_neighbors import knn_votes
from smmix_pl.models.features import pooled_features
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult


class KNN(Evaluation):
    """Accuracy of weighted nearest neighbors in the frozen features, as in DINO's evaluation.

    The training images, prepared like the test images, vote for the class of a test image. No
    weight is trained and the class head is not used. Features are those that a class head reads:
    the class token, or the mean token in models without one. All of them are kept on the device, 2
    GB for ImageNet and 384 features.

    Logged keys:
        `test/knn_20`: Top-1 accuracy with 20 neighbors, in [0, 1].

    Args:
        ks: Numbers of neighbors.
        temperature: Divides the cosine in the exponent of a vote.
    """

    needs_one_class = False

    def __init__(self, ks: Sequence[int] = (10, 20, 100, 200), temperature: float = 0.07) -> None:
        if not ks:
            raise InputError("KNN.ks=[]: empty. Set at least one.")
        for k in ks:
            in_range("KNN.ks", k, 1, hint="DINO reports 20")
        positive("KNN.temperature", temperature, "DINO uses 0.07")
        self.ks, self.temperature = sorted(set(ks)), temperature

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Compute the features of the training images.

        Raises:
            InputError: The dataset has no training split, or fewer images than neighbors.
        """
        data = require_image_data(trainer)
        features, labels = [], []
        for batch in data.plain_train_dataloader():
            moved = data.transfer_batch_to_device(batch, model.device, 0)
            images, classes = data.on_after_batch_transfer(moved, 0)
            features.append(_normalized(trainer, model, images))
            labels.append(classes)
        self.bank, self.labels = torch.cat(features), torch.cat(labels)
        if trainer.world_size > 1:
            self.bank = torch.cat(gather_all_tensors(self.bank))
            self.labels = torch.cat(gather_all_tensors(self.labels))
        if len(self.bank) < self.ks[-1]:
            raise InputError(
                f"KNN.ks={self.ks[-1]}: more neighbors than the {len(self.bank)} training images. "
                "Remove it."
            )
        self.num_classes = data.num_classes
        self.trainer = trainer
        self.accuracy = on_device(SweepAccuracy(len(self.ks)), model)

    def update(self, batch: EvalBatch) -> None:
        """Classify a batch."""
        queries = _normalized(self.trainer, batch.model, batch.images)
        votes = knn_votes(
            queries, self.bank, self.labels, self.ks, self.temperature, self.num_classes
        )
        for index, of_classes in enumerate(votes):
            self.accuracy.update(index, of_classes, batch.labels)

    def compute(self, images: int) -> EvalResult:
        """Return the accuracy with each number of neighbors."""
        values = self.accuracy.compute()
        scalars = {f"knn_{k}": value for k, value in zip(self.ks, values, strict=True)}
        protocol = {
            "temperature": self.temperature,
            "training_images": len(self.bank),
            "features": "class token, or mean token, L2-normalized",
        }
        return EvalResult(protocol, images, scalars)


def _normalized(trainer: Trainer, model: SMMixModule, images: Tensor) -> Tensor:
    with trainer.precision_plugin.forward_context():
        features = pooled_features(model.backbone.model, images)
    return F.normalize(features.float(), dim=1)
