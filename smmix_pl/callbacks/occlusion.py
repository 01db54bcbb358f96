"""Robustness to occlusion: accuracy when patches of the image are missing."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from smmix_pl.callbacks.figures import save_figure
from smmix_pl.errors import InputError
from smmix_pl.module import SMMixModule
from smmix_pl.plots import occlusion_curve


class Occlusion(Callback):
    """Test accuracy under random PatchDrop (Naseer et al., 2021), and its curve.

    A share of the patches of each image is set to 0 after normalisation; the patches differ by
    image and depend only on the seed and the image's place in the test set. All ratios are
    evaluated on each batch as it passes, so images are read once. Logs ``test/occlusion_25`` for
    25% dropped.

    Args:
        ratios: Shares of patches that are dropped, in (0, 1).
        patch_size: Side of a dropped patch in pixels; null takes the model's own patch.
        seed: Chooses the patches: two models with one seed see the same holes.
    """

    def __init__(
        self,
        ratios: Sequence[float] = (0.25, 0.5, 0.75),
        patch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        for ratio in ratios:
            if not 0 < ratio < 1:
                raise InputError(f"Occlusion's ratio {ratio} is not in (0, 1); 0.5 drops half")
        self.ratios = sorted(ratios)
        self.patch_size = patch_size
        self.seed = seed

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew; every ratio keeps its own accuracy, and so does the whole image."""
        self.accuracies = [
            MulticlassAccuracy(pl_module.num_classes, average="micro").to(pl_module.device)
            for _ in [0, *self.ratios]
        ]

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Evaluate one batch at every ratio."""
        images, classes = batch
        self.accuracies[0].update(outputs["logits"], classes)
        order = self._drop_order(trainer, pl_module, images, batch_idx)
        for ratio, accuracy in zip(self.ratios, self.accuracies[1:], strict=True):
            accuracy.update(pl_module(drop_patches(images, order, ratio)), classes)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the accuracies and draw the curve."""
        values = [accuracy.compute() for accuracy in self.accuracies]
        for ratio, value in zip(self.ratios, values[1:], strict=True):
            pl_module.log(f"test/occlusion_{100 * ratio:g}", value)
        curve = occlusion_curve(
            [0.0, *self.ratios], [float(value) for value in values], "Robustness to occlusion"
        )
        save_figure(trainer, "test/occlusion", curve)

    def _drop_order(
        self, trainer: Trainer, pl_module: LightningModule, images: Tensor, batch_idx: int
    ) -> Tensor:
        """For each image the order in which its patches are dropped, ``(B, G_h, G_w)``."""
        if self.patch_size is None:
            grid: tuple[int, int] = cast(SMMixModule, pl_module).backbone.grid
        else:
            grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        first = batch_idx * trainer.datamodule.batch_size  # type: ignore[attr-defined]
        places = (first + torch.arange(len(images))) * trainer.world_size + trainer.global_rank
        orders = [
            torch.randperm(
                grid[0] * grid[1],
                generator=torch.Generator().manual_seed(self.seed * 2**32 + place),
            )
            for place in places.tolist()
        ]
        return torch.stack(orders).unflatten(1, grid).to(images.device)


def drop_patches(images: Tensor, order: Tensor, ratio: float) -> Tensor:
    """Set the first patches of an order to 0.

    Args:
        images: ``(B, C, H, W)``, normalised.
        order: Rank of each patch among those of its image, ``(B, G_h, G_w)``, 0 first.
        ratio: round(ratio * G_h * G_w) patches are dropped.
    """
    dropped = order < round(ratio * order[0].numel())
    patch_h, patch_w = images.shape[2] // order.shape[1], images.shape[3] // order.shape[2]
    hole = dropped.repeat_interleave(patch_h, 1).repeat_interleave(patch_w, 2)
    return images.masked_fill(hole[:, None], 0.0)
