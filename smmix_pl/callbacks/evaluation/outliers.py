"""Detection of images that belong to none of the classes."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import BinaryAveragePrecision

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.data.transforms import normalize
from smmix_pl.errors import InputError
from smmix_pl.metrics import OUTLIER, DetectionHistograms, merge_bins
from smmix_pl.metrics.histogram import log_odds
from smmix_pl.module import SMMixModule
from smmix_pl.plots import score_histograms
from smmix_pl.robustness.patches import place_generator
from smmix_pl.runs.results import EvalResult


class OutlierDetection(Evaluation):
    """Detection of images from another dataset by the largest softmax probability.

    Test images are the positives (Hendrycks and Gimpel, 2017). Outliers are normalized with the
    mean and std of the test images.

    Logged keys:
        `test/ood_auroc`: Area under the ROC curve, in [0, 1].
        `test/ood_fpr95`: False positive rate at 95% true positive rate, in [0, 1].

    Args:
        outliers: Datamodule of the other dataset; its test split is used, and its classes are
            ignored. `null` uses uniform noise, one image per test image: a sanity check that needs
            no data.
        seed: Seed of the noise.
    """

    def __init__(self, outliers: ImageData | None = None, seed: int = 0) -> None:
        self.outliers = outliers
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the other dataset.

        Raises:
            InputError: Its images have another size than the test images, or the model does not
                classify.
        """
        super().setup(trainer, pl_module, stage)
        if stage != "test" or self.outliers is None:
            return
        data, size = require_image_data(trainer), self.outliers.image_size
        if size != data.image_size:
            raise InputError(
                f"OutlierDetection.outliers.image_size={list(size)}: must equal data.image_size. "
                f"Set it to {list(data.image_size)}."
            )
        self.outliers.trainer = trainer
        self.outliers.mean, self.outliers.std = data.mean, data.std  # as the model was trained
        self.outliers.prepare_data()  # processes wait for each other while one downloads
        self.outliers.setup("test")

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the histograms."""
        self.histograms = on_device(DetectionHistograms(), model)
        self.trainer, self.model = trainer, model

    def update(self, batch: EvalBatch) -> None:
        """Add a batch of images, and a batch of noise unless there is another dataset."""
        self.histograms.update(batch.logits, outliers=False)
        if self.outliers is None:
            self.histograms.update(batch.logits_of(self._noise(batch)), outliers=True)

    def compute(self, images: int) -> EvalResult:
        """Evaluate the other dataset, and return AUROC, and FPR at 95% TPR."""
        if self.outliers is not None:
            for logits in self._logits(self.outliers):
                self.histograms.update(logits, outliers=True)
        detection = self.histograms.compute()
        outliers = "uniform noise" if self.outliers is None else type(self.outliers).__name__
        protocol: dict[str, Any] = {
            "outliers": outliers,
            "outlier_images": detection.outliers,
            "score": "largest softmax probability",
        }
        if self.outliers is None:
            protocol["seed"] = self.seed
        self.histogram = merge_bins(detection.fractions)
        scalars = {"ood_auroc": detection.auroc, "ood_fpr95": detection.fpr95}
        return EvalResult(protocol, images, scalars)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return the histograms of test images and outliers."""
        auroc, fpr = (100 * result.scalars[name] for name in ("ood_auroc", "ood_fpr95"))
        names = ("Test images", f"Outliers: {result.protocol['outliers']}")
        title = f"Outlier detection: AUROC {auroc:.1f}%, FPR95 {fpr:.1f}%"
        label = "Confidence (%, scale of log odds)"
        return {"outliers": score_histograms(*self.histogram, names, title, label)}

    def _logits(self, data: ImageData) -> Iterator[Tensor]:
        for batch in data.test_dataloader():
            moved = data.transfer_batch_to_device(batch, self.model.device, 0)
            images, _ = data.on_after_batch_transfer(moved, 0)
            with self.trainer.precision_plugin.forward_context():
                yield self.model(images)

    def _noise(self, batch: EvalBatch) -> Tensor:
        shape = batch.images.shape[1:]
        drawn = [
            torch.randint(256, shape, generator=place_generator(self.seed, place))
            for place in batch.places
        ]
        noise = torch.stack(drawn).to(batch.images.device)
        return normalize(noise, batch.data.mean, batch.data.std).to(batch.images.dtype)


class OutlierPrecision(Evaluation):
    """Detection of the outliers that a dataset contains, by low confidence (ImageNet-O).

    Outliers have the label -1 and are the positives. Confidence is the largest softmax probability
    over the classes of the dataset.

    Logged keys:
        `test/AUPR`: Area under the precision-recall curve, in [0, 1].
    """

    includes_outliers = True

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the metric.

        Raises:
            InputError: The dataset contains no outliers.
        """
        data = require_image_data(trainer)
        if not data.has_outliers:
            raise InputError(
                f"trainer.callbacks: OutlierPrecision does not support {type(data).__name__}, "
                "which has no outliers. Remove it, test on ImageNetO, or use OutlierDetection."
            )
        self.precision = on_device(BinaryAveragePrecision(), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        doubt = torch.sigmoid(-log_odds(batch.logits))  # 1 - p, also distinct where p rounds to 1
        self.precision.update(doubt, (batch.classes == OUTLIER).long())

    def compute(self, images: int) -> EvalResult:
        """Return the area under the precision-recall curve over all ranks."""
        protocol = {"outliers": "of the set", "score": "largest softmax probability"}
        return EvalResult(protocol, images, {"AUPR": float(self.precision.compute())})
