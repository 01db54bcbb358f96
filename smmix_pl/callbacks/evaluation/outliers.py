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
from smmix_pl.data.transforms import normalize
from smmix_pl.errors import InputError
from smmix_pl.metrics import OUTLIER, DetectionHistograms, coarse
from smmix_pl.metrics.histogram import log_odds
from smmix_pl.module import SMMixModule
from smmix_pl.plots import score_histograms
from smmix_pl.robustness.patches import place_generator
from smmix_pl.runs.results import EvalResult


class OutlierDetection(Evaluation):
    """How well the largest softmax probability tells test images from images of another set.

    Logs ``test/ood_auroc`` and ``test/ood_fpr95`` (Hendrycks and Gimpel, 2017), with the test
    images as the positives. Outliers are normalized as the test images are.

    Args:
        outliers: The other data set; its test part is used, whatever its classes. Null takes
            uniform noise, one image for each test image: a sanity check that needs no data.
        seed: Of the noise.
    """

    def __init__(self, outliers: ImageData | None = None, seed: int = 0) -> None:
        self.outliers = outliers
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the other data set.

        Raises:
            InputError: Its images have another size.
        """
        if stage != "test" or self.outliers is None:
            return
        size = trainer.datamodule.image_size  # type: ignore[attr-defined]
        if self.outliers.image_size != size:
            raise InputError(
                f"OutlierDetection's outliers are {self.outliers.image_size} and the test images "
                f"{size}; set the outliers' image_size to the same"
            )
        self.outliers.trainer = trainer
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.outliers.mean, self.outliers.std = data.mean, data.std  # what the model knows
        self.outliers.prepare_data()  # processes wait for each other while one downloads
        self.outliers.setup("test")

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        self.histograms = on_device(DetectionHistograms(), model)
        self.batches = iter(()) if self.outliers is None else self._batches(self.outliers, model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch of images and one of noise; with the first batch, all of another set."""
        self.histograms.update(batch.logits, outliers=False)
        for others in [self._noise(batch)] if self.outliers is None else self.batches:
            self.histograms.update(batch.logits_of(others), outliers=True)

    def compute(self, images: int) -> EvalResult:
        """AUROC and FPR at 95% TPR."""
        found = self.histograms.compute()
        outliers = "uniform noise" if self.outliers is None else type(self.outliers).__name__
        protocol: dict[str, Any] = {
            "outliers": outliers,
            "outlier_images": found.outliers,
            "score": "largest softmax probability",
        }
        if self.outliers is None:
            protocol["seed"] = self.seed
        self.histogram = coarse(found.shares)
        return EvalResult(protocol, images, {"ood_auroc": found.auroc, "ood_fpr95": found.fpr95})

    def figures(self, report: EvalResult) -> dict[str, Figure]:
        """Both histograms."""
        auroc, fpr = (100 * report.scalars[name] for name in ("ood_auroc", "ood_fpr95"))
        names = ("test images", report.protocol["outliers"])
        title = f"Outliers: AUROC {auroc:.1f}%, FPR95 {fpr:.1f}%"
        label = "log odds of the largest softmax probability"
        return {"outliers": score_histograms(*self.histogram, names, title, label)}

    def _batches(self, data: ImageData, model: SMMixModule) -> Iterator[Tensor]:
        for batch in data.test_dataloader():
            moved = data.transfer_batch_to_device(batch, model.device, 0)
            yield data.on_after_batch_transfer(moved, 0)[0]

    def _noise(self, batch: EvalBatch) -> Tensor:
        data = batch.trainer.datamodule  # type: ignore[attr-defined]
        shape = batch.images.shape[1:]
        drawn = [
            torch.randint(256, shape, generator=place_generator(self.seed, place))
            for place in batch.places
        ]
        noise = torch.stack(drawn).to(batch.images.device)
        return normalize(noise, data.mean, data.std).to(batch.images.dtype)


class OutlierPrecision(Evaluation):
    """Area under the precision-recall curve of a set's own outliers, found by low confidence.

    Logs ``test/AUPR``. Outliers, which have the class -1, are the positives; confidence is the
    largest softmax probability over the classes in question (ImageNet-O's protocol).
    """

    measures_outliers = True

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew.

        Raises:
            InputError: The data has no outliers of its own.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not data.has_outliers:
            raise InputError(
                f"OutlierPrecision is for ImageNetO, not for {type(data).__name__}, all images of "
                "which have a class; take it out of trainer.callbacks, or use OutlierDetection"
            )
        self.precision = on_device(BinaryAveragePrecision(), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        doubt = torch.sigmoid(-log_odds(batch.logits))  # 1 - p, told apart where p rounds to 1
        self.precision.update(doubt, (batch.classes == OUTLIER).long())

    def compute(self, images: int) -> EvalResult:
        """The area, over all ranks."""
        protocol = {"outliers": "of the set", "score": "largest softmax probability"}
        return EvalResult(protocol, images, {"AUPR": float(self.precision.compute())})
