"""Linear classification of frozen features, with all learning rates trained in one pass."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from smmix_pl.base_module import BaseModule
from smmix_pl.checks import positive
from smmix_pl.downstream.frozen_backbone import frozen_backbone
from smmix_pl.downstream.linear_sweep import LinearSweep
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import reset_step_metrics
from smmix_pl.logged_steps import logs_next_step
from smmix_pl.metrics import OUTLIER, SweepAccuracy, topk_accuracy, true_classes
from smmix_pl.models.features import pooled_features
from smmix_pl.optim import OptimConfig
from smmix_pl.seeding import run_seed

Batch = tuple[Tensor, Tensor]
OPTIM = OptimConfig(
    name="sgd", lr=0.1, lr_batch=256, weight_decay=0.0, warmup_epochs=0.0, min_lr=0.0
)
"""lightly's settings: SGD with a momentum of 0.9, 0.1 per 256 images, cosine."""


class LinearProbe(BaseModule):
    """Trains linear classifiers on the frozen features of a backbone, one per learning rate.

    As in MAE, features are standardized by a BatchNorm without affine parameters. As in DINOv2, one
    pass over the images trains a classifier for each learning rate, and the best on the validation
    data is the one that is tested. Choose them on `data.held_out` images, not on the test set.

    Args:
        num_classes: Number of classes. Set by the data on the command line.
        image_size: (height, width) in pixels. Set by the data on the command line.
        batch_size: Images per device and step, for the learning rate. Set by the data on the
            command line.
        mean: Channel means of the normalization. Set by the data on the command line.
        std: Channel standard deviations of the normalization. Set by the data on the command line.
        backbone: Name of a timm model.
        backbone_args: Further arguments of `timm.create_model`.
        pretrained: Start from timm's pretrained weights.
        init_from: Start from the weights in a file: a checkpoint of a run, the authors' release, an
            original release of the backbone, or a timm file.
        init_image_size: (height, width) that the position embeddings in `init_from` were trained
            with. `null` infers it from the file; an error asks for it where that is ambiguous.
        lr_factors: Factors of `optim.lr`, one classifier each.
        optim: SGD (`sgd` or `momentum`) without weight decay, and its schedule.
    """

    task = "linear probe"
    has_one_class = True
    validated_buffers = ("best",)

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        batch_size: int,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        backbone: str = "deit_small_patch16_224",
        backbone_args: dict[str, Any] | None = None,
        pretrained: bool = False,
        init_from: str | None = None,
        init_image_size: tuple[int, int] | None = None,
        lr_factors: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        optim: OptimConfig = OPTIM,
    ) -> None:
        super().__init__()
        optim = OptimConfig(**optim) if isinstance(optim, dict) else optim
        _check_optimizer(optim, lr_factors)
        if batch_size < 2:
            raise InputError(
                f"data.batch_size={batch_size}: the batch norm of the features needs at least 2 "
                "images. Raise it."
            )
        self.save_hyperparameters(logger=False, ignore=["init_from"])
        self.hparams["optim"], self.hparams["pretrained"] = asdict(optim), False
        self.num_classes, self.batch_size, self.optim = num_classes, batch_size, optim
        self.backbone, self.provenance = frozen_backbone(
            backbone, image_size, backbone_args, pretrained, init_from, init_image_size
        )
        width = self.backbone.model.num_features
        self.sweep = LinearSweep(width, num_classes, lr_factors)
        self.lrs = [factor * optim.lr for factor in self.sweep.factors]
        """Learning rate of each classifier for `optim.lr_batch` images."""
        self.best: Tensor
        self.register_buffer("best", torch.tensor(len(self.lrs) // 2))
        """Index of the classifier with the best validation accuracy."""
        self.val_sweep = SweepAccuracy(len(self.lrs))
        self.test_accuracy = topk_accuracy(num_classes).clone(prefix="test/")
        self.test_loss = MeanMetric()

    @property
    def trained_part(self) -> nn.Module:
        """The classifiers."""
        return self.sweep

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the probe; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def all_logits(self, images: Tensor) -> list[Tensor]:
        """Return the logits `(B, K)` of each classifier for images `(B, C, H, W)`."""
        with torch.no_grad():
            features = pooled_features(self.backbone.model, images)
        logits: list[Tensor] = self.sweep(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `(B, K)` of the best classifier."""
        return self.all_logits(images)[int(self.best)]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Train every classifier."""
        images, classes = batch
        loss, each = self.sweep.losses(self.all_logits(images), classes)
        if logs_next_step(self.trainer):
            reset_step_metrics(self.trainer)
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict({"train/loss": each[self.best], "lr": self.on_device(lr)})
        return {"loss": loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate every classifier, and return the `logits` of the one that was best before."""
        images, labels = batch
        all_logits = self.all_logits(images)
        for index, logits in enumerate(all_logits):
            self.val_sweep.update(index, logits, labels)
        return {"logits": all_logits[int(self.best)]}

    def on_validation_epoch_start(self) -> None:
        """Reset the accuracies."""
        self.val_sweep.reset()

    def on_validation_epoch_end(self) -> None:
        """Select the best classifier, and log its accuracy and that of each learning rate."""
        accuracies = self.val_sweep.compute()
        best = max(range(len(accuracies)), key=accuracies.__getitem__)
        if not self.trainer.sanity_checking:
            self.best.fill_(best)
        self.log("val/top1", accuracies[best], prog_bar=True, sync_dist=True)
        self.log("val/best_lr", self.lrs[best], sync_dist=True)
        for lr, accuracy in zip(self.lrs, accuracies, strict=True):
            name = np.format_float_positional(lr, precision=6, trim="-")
            self.log(f"val/top1_lr_{name}", accuracy, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        self.test_accuracy.reset()
        self.test_loss.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate the best classifier and return its `logits`."""
        images, labels = batch
        logits = self(images)
        classes = true_classes(labels, logits)
        self.test_accuracy.update(logits, classes)
        losses = F.cross_entropy(logits.float(), classes, ignore_index=OUTLIER, reduction="none")
        self.test_loss.update(losses, weight=classes != OUTLIER)
        return {"logits": logits}

    def on_test_epoch_end(self) -> None:
        """Log the metrics, on every rank."""
        self.log_dict(self.test_accuracy)
        self.log("test/loss", self.test_loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store how the backbone was trained, and the seed."""
        checkpoint["trained"] = self.provenance | {"seed": run_seed()}


def _check_optimizer(optim: OptimConfig, lr_factors: Sequence[float]) -> None:
    if not lr_factors:
        raise InputError("model.lr_factors=[]: empty. Set at least one, such as 1.")
    for factor in lr_factors:
        positive("model.lr_factors", factor, "1 trains with model.optim.lr")
    if optim.name not in ("sgd", "momentum"):
        raise InputError(
            f"model.optim.name={optim.name}: a LinearProbe scales losses, which are learning rates "
            "of SGD only. Use sgd or momentum."
        )
    if optim.weight_decay:
        raise InputError(
            f"model.optim.weight_decay={optim.weight_decay}: a LinearProbe has none, as in MAE and "
            "DINOv2. Set 0."
        )
