"""Detection of images that belong to none of the classes."""

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation import Evaluated, Evaluation, on_device
from smmix_pl.data import ImageData
from smmix_pl.data.transforms import normalise
from smmix_pl.errors import InputError
from smmix_pl.metrics import DetectionHistograms, coarse
from smmix_pl.module import SMMixModule
from smmix_pl.plots import score_histograms
from smmix_pl.results import Report
from smmix_pl.robustness.patches import place_generator


class OutlierDetection(Evaluation):
    """How well the largest softmax probability tells test images from images of another set.

    Logs ``test/ood_auroc`` and ``test/ood_fpr95`` (Hendrycks and Gimpel, 2017), with the test
    images as the positives. Batches of outliers are evaluated beside those of the test set.

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
        self.outliers.setup("test")

    def begin(self, trainer: Trainer, model: SMMixModule) -> None:
        """Begin anew."""
        self.histograms = on_device(DetectionHistograms(), model)
        self.batches = iter(()) if self.outliers is None else self._batches(self.outliers, model)
        self.last = sum(trainer.num_test_batches) - 1
        self.seen = 0

    def measure(self, batch: Evaluated) -> None:
        """Add a batch of images and one of outliers; with the last one, all outliers left."""
        self.histograms.update(batch.logits, outliers=False)
        if self.outliers is None:
            self.histograms.update(batch.logits_of(self._noise(batch)), outliers=True)
        else:
            last = self.seen == self.last
            for others in self.batches:
                self.histograms.update(batch.logits_of(others), outliers=True)
                if not last:
                    break
        self.seen += 1

    def report(self, images: int) -> Report:
        """AUROC and FPR at 95% TPR."""
        found = self.histograms.compute()
        outliers = "uniform noise" if self.outliers is None else type(self.outliers).__name__
        protocol = {"outliers": outliers, "score": "largest softmax probability"}
        if self.outliers is None:
            protocol["seed"] = str(self.seed)
        self.histogram = coarse(found.shares)
        return Report(protocol, images, {"ood_auroc": found.auroc, "ood_fpr95": found.fpr95})

    def figures(self, report: Report) -> dict[str, Figure]:
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

    def _noise(self, batch: Evaluated) -> Tensor:
        data = batch.trainer.datamodule  # type: ignore[attr-defined]
        shape = batch.images.shape[1:]
        drawn = [
            torch.randint(256, shape, generator=place_generator(self.seed, place))
            for place in batch.places
        ]
        noise = torch.stack(drawn).to(batch.images.device)
        return normalise(noise, data.mean, data.std).to(batch.images.dtype)
