"""What papers report on corrupted sets and on outliers, as callbacks for `lightning test`."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics.classification import BinaryAveragePrecision


def mean_corruption_error(
    errors: Mapping[str, float], reference: Mapping[str, float] | None
) -> float:
    """Mean over corruptions of the error, relative to a reference model's where there is one.

    Args:
        errors: Top-1 error of each corruption, mean over severities, in [0, 1].
        reference: The reference model's; null for the plain mean, as papers do on CIFAR.
            Corruptions that it does not know are left out.
    """
    if reference is None:
        return sum(errors.values()) / len(errors)
    relative = [error / reference[name] for name, error in errors.items() if name in reference]
    return sum(relative) / len(relative) if relative else float("nan")


class CorruptionError(Callback):
    """Logs the error of each corruption and the mean corruption error, as fractions.

    For the data modules in `smmix_pl.data.corruptions`.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.ends = torch.tensor(trainer.datamodule.test_ends)  # type: ignore[attr-defined]
        self.counts = torch.zeros(len(self.ends), 2)
        self.seen = 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the errors of one batch, by the places that `EvaluationSampler` gives each rank."""
        wrong = (outputs["logits"].argmax(dim=1) != outputs["classes"]).cpu()
        mine = torch.arange(self.seen, self.seen + len(wrong))
        part = torch.bucketize(
            trainer.global_rank + mine * trainer.world_size, self.ends, right=True
        )
        found = torch.stack([wrong.float(), torch.ones(len(wrong))], dim=1)
        self.counts.index_add_(0, part, found)
        self.seen += len(wrong)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, over all ranks."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        counts = trainer.strategy.reduce(self.counts.to(pl_module.device), reduce_op="sum").cpu()
        rates = (counts[:, 0] / counts[:, 1]).view(len(data.corruptions), -1).mean(dim=1)
        errors = dict(zip(data.corruptions, rates.tolist(), strict=True))
        mean = mean_corruption_error(errors, data.reference_errors)
        pl_module.log_dict(
            {f"test/error_{name}": error for name, error in errors.items()} | {"test/mCE": mean},
            rank_zero_only=True,
        )


class OutlierPrecision(Callback):
    """Logs the area under the precision-recall curve of outliers, found by low confidence.

    The score of an image is the negative of its largest softmax probability, over the classes in
    question, and outliers, which have the class -1, are the positives (ImageNet-O's protocol).
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to collect."""
        self.precision = BinaryAveragePrecision().to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect one batch."""
        confidence = outputs["logits"].float().softmax(dim=1).amax(dim=1)
        self.precision.update(1 - confidence, (batch[1] < 0).long())

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, over all ranks."""
        pl_module.log("test/AUPR", self.precision.compute(), rank_zero_only=True)
