"""Pictures of predicted masks."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.callbacks.output.figure_saver import run_folder, save_figure
from smmix_pl.checks import in_range
from smmix_pl.data.dense import DenseData
from smmix_pl.data.trainer_datamodule import require_base_data
from smmix_pl.data.transforms import denormalize
from smmix_pl.plots.segmentation_overlays import segmentation_overlays


class SegmentationPictures(Callback):
    """Draws the first images of the validation or test set with their masks and predictions.

    Args:
        images: Number of images.
    """

    def __init__(self, images: int = 4) -> None:
        in_range("SegmentationPictures.images", images, 1, 16)
        self.images = images
        self._drawn: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images of rank 0."""
        if run_folder(trainer) is None or not trainer.is_global_zero:
            return
        data = require_base_data(trainer)
        for image, mask, prediction in zip(*batch, outputs["predictions"], strict=True):
            if len(self._drawn) == self.images:
                break
            sized = F.interpolate(image[None].float(), mask.shape, mode="bilinear")[0]
            shown = denormalize(sized, data.mean, data.std)
            self._drawn.append((shown.cpu(), mask.cpu(), prediction.cpu()))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images."""
        drawn, self._drawn = self._drawn, []
        if drawn and not trainer.sanity_checking:
            names = cast(DenseData, require_base_data(trainer)).class_names
            images, masks, predictions = zip(*drawn, strict=True)
            figure = segmentation_overlays(images, masks, predictions, names)
            stage = "test" if trainer.testing else "val"
            key = f"{stage}/segmentation"
            save_figure(trainer, pl_module, key, figure, len(drawn), photographs=True)

    on_test_epoch_end = on_validation_epoch_end
