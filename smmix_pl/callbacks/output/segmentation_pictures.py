"""Pictures of predicted masks."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.output.prediction_pictures import PredictionPictures
from smmix_pl.plots.segmentation_overlays import segmentation_overlays


class SegmentationPictures(PredictionPictures):
    """Draws the first images of the validation or test set with their masks and predictions.

    Args:
        images: Number of images.
    """

    name = "segmentation"

    def size(self, truth: Tensor) -> list[int]:
        """Return (H, W) of a mask."""
        return list(truth.shape)

    def figure(
        self,
        images: Sequence[Tensor],
        truths: Sequence[Tensor],
        predictions: Sequence[Tensor],
        names: list[str],
    ) -> Figure:
        """Return the figure of masks."""
        return segmentation_overlays(images, truths, predictions, names)
