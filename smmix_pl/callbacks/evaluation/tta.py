"""Test-time augmentation."""

import torch
from lightning.pytorch import Trainer

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.metrics import ProperScores, ReliabilityBins, SweepAccuracy
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult


class TTA(Evaluation):
    """Test-time augmentation: the mean probabilities of each image and of its mirror image.

    Probabilities are averaged, not logits, so that a confident view does not outvote the other.
    The mirror image has the same class only if training flips images as well (`hflip`).

    Logged keys:
        `test/tta_top1`: Accuracy, in [0, 1].
        `test/tta_ece`: Expected calibration error in 15 bins, in [0, 1].
        `test/tta_nll`: Negative log-likelihood in nats.
    """

    passes = 1

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Reset the metrics."""
        self.accuracy = on_device(SweepAccuracy(1), model)
        self.bins = on_device(ReliabilityBins(), model)
        self.scores = on_device(ProperScores(), model)

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        views = torch.stack((batch.logits, batch.logits_of(batch.images.flip(3)))).float()
        # the logarithm of mean probabilities, which the metrics read as logits
        mean = views.log_softmax(dim=2).logsumexp(dim=0)
        self.accuracy.update(0, mean, batch.labels)
        for metric in (self.bins, self.scores):
            metric.update(mean, batch.classes)

    def compute(self, images: int) -> EvalResult:
        """Return accuracy, ECE, and NLL."""
        [top1] = self.accuracy.compute()
        ece, nll = float(self.bins.compute().ece), float(self.scores.compute()["nll"])
        protocol = {"views": "image and its mirror image", "mean_of": "probabilities"}
        return EvalResult(protocol, images, {"tta_top1": top1, "tta_ece": ece, "tta_nll": nll})
