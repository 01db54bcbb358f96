"""Classification of images with any number of labels."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from smmix_pl.checks import in_range
from smmix_pl.errors import InputError
from smmix_pl.losses import LossConfig
from smmix_pl.metrics.label_scores import BestThresholds, LabelCalibration
from smmix_pl.module import SMMixModule

LOSSES = LossConfig(classification="binary", label_smoothing=0.0)


class MultiLabel(SMMixModule):
    """Trains a timm vision transformer on mixed images with several labels each.

    Labels are multi-hot and mixed by the weights of the mixer, for the binary cross entropy. With
    SMMix, the fine-grained loss gives both regions all labels of their own image, and the
    consistency loss is the mean binary KL divergence.

    Logged keys:
        `val/map`: Mean average precision over the labels, as for `test`.
        `val/f1_micro`, `val/f1_macro`: F1 score of the predicted labels, over all of them and as
            the mean over labels.
        `val/label_ece`: Calibration error of each label's probability, averaged over labels.

    Args:
        threshold: Probability above which a label is predicted: a number, or `f1` for the best
            threshold of each label on the validation set, which is stored with the weights.
        losses: Loss settings, with `classification=binary`.
        **options: See `SMMixModule`.
    """

    task = "multi-label classification"
    has_one_class = False
    validated_buffers = ("thresholds",)

    def __init__(
        self,
        *,
        threshold: float | Literal["f1"] = "f1",
        losses: LossConfig = LOSSES,
        **options: Any,
    ) -> None:
        if threshold != "f1":
            in_range("model.threshold", threshold, 0, 1, "f1 chooses one for each label")
        losses = LossConfig(**losses) if isinstance(losses, dict) else losses
        if losses.classification != "binary":
            raise InputError(
                f"model.losses.classification={losses.classification}: several labels need binary "
                "cross entropy. Set binary."
            )
        super().__init__(losses=losses, **options)
        self.threshold = threshold
        self.thresholds: Tensor
        initial = 0.5 if threshold == "f1" else float(threshold)
        self.register_buffer("thresholds", torch.full((self.num_classes,), initial))
        self.val_scores, self.test_scores = _scores(self.num_classes), _scores(self.num_classes)
        self.best_thresholds = BestThresholds(self.num_classes)

    def soft_labels(self, classes: Tensor) -> Tensor:
        """Return labels `(B, K)` in [s / 2, 1 - s / 2] with label smoothing s.

        Raises:
            InputError: The data has one class per image.
        """
        self._check_labels(classes)
        smoothing = self.loss_config.label_smoothing
        return classes.float() * (1 - smoothing) + smoothing / 2

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics."""
        for metric in (self.val_scores, self.best_thresholds, self.val_loss):
            metric.reset()

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        self.test_scores.reset()
        self.test_loss.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Evaluate one batch of the validation set and return its `logits`."""
        logits = self._score(batch, self.val_scores, self.val_loss)
        self.best_thresholds.update(logits.float().sigmoid(), batch[1])
        return {"logits": logits}

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Evaluate one batch of the test set and return its `logits`."""
        return {"logits": self._score(batch, self.test_scores, self.test_loss)}

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and choose the thresholds for the next evaluation."""
        self._log_scores("val", self.val_scores, self.val_loss)
        if self.threshold == "f1" and not self.trainer.sanity_checking:
            self.thresholds.copy_(self.best_thresholds.compute())

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_scores("test", self.test_scores, self.test_loss)

    def predict_step(self, batch: tuple[Tensor, Sequence[str]], batch_idx: int) -> dict[str, Any]:
        """Return the file and the label `probabilities` `(B, K)` of each image."""
        images, files = batch
        return {"file": files, "probabilities": self(images).float().sigmoid()}

    def _score(
        self, batch: tuple[Tensor, Tensor], scores: MetricCollection, mean_loss: MeanMetric
    ) -> Tensor:
        images, labels = batch
        self._check_labels(labels)
        logits = self(images)
        probabilities = logits.float().sigmoid()
        for name in ("map", "label_ece"):
            scores[name].update(probabilities, labels)
        for name in ("f1_micro", "f1_macro"):
            scores[name].update((probabilities > self.thresholds).long(), labels)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float())
        mean_loss.update(loss, weight=len(images))
        return logits

    def _log_scores(self, stage: str, scores: MetricCollection, mean_loss: MeanMetric) -> None:
        for name, value in scores.compute().items():
            self.log(f"{stage}/{name}", value.float(), prog_bar=name == "map")
        self.log(f"{stage}/loss", mean_loss)

    def _check_labels(self, labels: Tensor) -> None:
        if labels.ndim != 2 or labels.dtype != torch.bool:
            raise InputError(
                f"data: MultiLabel needs labels (B, K) of torch.bool, got shape "
                f"{tuple(labels.shape)} of {labels.dtype}. Use smmix_pl.data.LabelFile, or "
                "SMMixModule for one class per image."
            )


def _scores(labels: int) -> MetricCollection:
    # without compute groups: the metrics are updated one by one
    return MetricCollection(
        {
            "map": MultilabelAveragePrecision(labels),
            "f1_micro": MultilabelF1Score(labels, average="micro"),
            "f1_macro": MultilabelF1Score(labels, average="macro"),
            "label_ece": LabelCalibration(labels),
        },
        compute_groups=False,
    )
