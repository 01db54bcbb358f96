"""Pictures of detected objects."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.output.prediction_pictures import PredictionPictures
from smmix_pl.checks import probability
from smmix_pl.plots.detection_overlays import detection_overlays

Objects = dict[str, Tensor]


class DetectionPictures(PredictionPictures):
    """Draws the first images of the validation or test set with their objects and detections.

    Args:
        images: Number of images.
        min_score: Detections with a lower score are not drawn.
    """

    name = "detection"

    def __init__(self, images: int = 4, min_score: float = 0.5) -> None:
        super().__init__(images)
        self.min_score = probability("DetectionPictures.min_score", min_score)

    def size(self, truth: Objects) -> list[int]:
        """Return (H, W) of the file that a target belongs to."""
        size: list[int] = truth["size"].tolist()
        return size

    def figure(
        self,
        images: Sequence[Tensor],
        truths: Sequence[Objects],
        predictions: Sequence[Objects],
        names: list[str],
    ) -> Figure:
        """Return the figure of objects."""
        likely = [
            {name: value[one["scores"] >= self.min_score] for name, value in one.items()}
            for one in predictions
        ]
        return detection_overlays(images, truths, likely, names)
