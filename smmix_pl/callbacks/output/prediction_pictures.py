"""Pictures of the first images with their truth and prediction, for the dense tasks."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.callbacks.output.figure_saver import run_folder, save_figure
from smmix_pl.checks import in_range
from smmix_pl.data.trainer_datamodule import require_base_data
from smmix_pl.data.transforms import denormalize


class PredictionPictures(Callback):
    """Draws the first images of the validation or test set. A subclass draws the figure.

    Args:
        images: Number of images.
    """

    name = ""
    """Log key of the figure, without the stage."""

    def __init__(self, images: int = 4) -> None:
        in_range(f"{type(self).__name__}.images", images, 1, 16)
        self.images = images
        self._drawn: list[tuple[Tensor, Any, Any]] = []

    @abstractmethod
    def size(self, truth: Any) -> list[int]:
        """Return (H, W) of the file of an image, given its truth."""

    @abstractmethod
    def figure(
        self, images: Sequence[Tensor], truths: Any, predictions: Any, names: list[str]
    ) -> Figure:
        """Return the figure.

        Args:
            images: `(3, H, W)` in [0, 1].
            truths: What the data gives for each image, on the CPU.
            predictions: What the model returns for each image, on the CPU.
            names: Class names.
        """

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
        for image, truth, prediction in zip(*batch, outputs["predictions"], strict=True):
            if len(self._drawn) == self.images:
                break
            sized = F.interpolate(image[None].float(), self.size(truth), mode="bilinear")[0]
            shown = denormalize(sized, data.mean, data.std)
            self._drawn.append(move_data_to_device((shown, truth, prediction), "cpu"))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images."""
        drawn, self._drawn = self._drawn, []
        if drawn and not trainer.sanity_checking:
            names = require_base_data(trainer).class_names
            images, truths, predictions = zip(*drawn, strict=True)
            figure = self.figure(images, truths, predictions, names)
            key = f"{'test' if trainer.testing else 'val'}/{self.name}"
            save_figure(trainer, pl_module, key, figure, len(drawn), photographs=True)

    on_test_epoch_end = on_validation_epoch_end
