"""How much of the objects the guide's windows paste and hide, where objects are known."""

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.checks import in_range
from smmix_pl.data.base import Split
from smmix_pl.data.objects import (
    VOID,
    Annotation,
    ObjectData,
    Objects,
    require_objects,
    visible_objects,
)
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.errors import InputError
from smmix_pl.mixing.regions import least_attended, most_attended, window_mask, window_scores
from smmix_pl.module import SMMixModule
from smmix_pl.runs.results import EvalResult


class GuideQuality(Evaluation):
    """Quality of the windows that SMMix would choose, on validation and test images.

    For datasets that derive from `ObjectData`. The guide pass of the model (`model.guide`) reads
    each image without mixing, also if a teacher or averaged weights guide the training. Objects are
    the union of masks, or of boxes where there are no masks.

    Logged keys, for each side in percent of the shorter side of the token grid, such as 50, after
    `val/` or `test/`. All are means over images, in [0, 1]:
        `guide_pasted_50`: Fraction of the objects inside the most-attended window, which is pasted.
        `guide_hidden_50`: Fraction inside the least-attended window, which is covered.
        `guide_random_50`: Mean fraction over all windows: the baseline of both.

    Args:
        sides: Sides of the windows as fractions of the shorter side of the token grid, in (0, 1].
    """

    stages = ("val", "test")
    needs_one_class = False

    def __init__(self, sides: Sequence[float] = (0.25, 0.5)) -> None:
        if not sides:
            raise InputError("GuideQuality.sides=[]: empty. Set at least one.")
        for side in sides:
            in_range("GuideQuality.sides", side, 0.01, 1, "SMMix draws sides of 0.25 to 0.75")
        self.sides = list(dict.fromkeys(sides))

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Read the annotations and reset the means.

        Raises:
            InputError: The dataset has no objects, or they are not those of the evaluated images.
        """
        data = require_objects(require_image_data(trainer), type(self).__name__)
        self.annotations = _annotations(data, "test" if trainer.testing else "val")
        self.recipe, self.size = data.eval_recipe, data.image_size
        names = ("pasted", "hidden", "random")
        keys = [f"guide_{name}_{100 * side:g}" for side in self.sides for name in names]
        self.means = {key: on_device(MeanMetric(), model) for key in keys}
        self.passes = 1

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        attention = batch.attention()
        grid = (attention.shape[1], attention.shape[2])
        objects = [self._covered(self.annotations[place]) for place in batch.places]
        covered = F.adaptive_avg_pool2d(torch.stack(objects)[:, None], grid)[:, 0]
        seen = covered.sum(dim=(1, 2)) > 0  # the crop may have cut the object off
        covered, attention = covered.to(attention.device)[seen], attention[seen]
        if not len(covered):
            return
        area = covered.sum(dim=(1, 2))
        for ratio in self.sides:
            side = max(1, int(min(grid) * ratio))
            for name, corners in (
                ("pasted", most_attended(attention, side)),
                ("hidden", least_attended(attention, side)),
            ):
                inside = (covered.flatten(1) * window_mask(corners, side, grid)).sum(dim=1)
                self.means[f"guide_{name}_{100 * ratio:g}"].update(inside / area)
            every = window_scores(covered, side).flatten(1).mean(dim=1).float()
            self.means[f"guide_random_{100 * ratio:g}"].update(every / area)

    def compute(self, images: int) -> EvalResult:
        """Return the means over images that show an object."""
        values = {key: float(mean.compute()) for key, mean in self.means.items()}
        known = {key: value for key, value in values.items() if value == value}  # not NaN
        return EvalResult({"sides": self.sides}, images, known)

    def _covered(self, annotation: Annotation) -> Tensor:
        """Return 1 where an evaluation image shows an object, `(H, W)` float32."""
        objects = visible_objects(annotation, self.recipe, self.size)
        return _object_mask(objects, self.size).float()


def _annotations(data: ObjectData, split: Split) -> list[Annotation]:
    """Return the annotations of the images of a split.

    Raises:
        InputError: They belong to other images.
    """
    found = data.annotations()
    if [str(file) for file, _ in data.samples(data.part_of(split))] != [one.image for one in found]:
        raise InputError(
            f"data.held_out={data.held_out}: GuideQuality needs the objects of the {split} images, "
            f"but {type(data).__name__} has those of the test images. Set data.held_out=0."
        )
    return found


def _object_mask(objects: Objects, size: tuple[int, int]) -> Tensor:
    """Return where an image shows objects, `(H, W)` bool."""
    if objects.mask is not None:
        return (objects.mask > 0) & (objects.mask != VOID)
    mask = torch.zeros(size, dtype=torch.bool)
    for left, top, right, bottom in objects.boxes.round().int().tolist():
        mask[top:bottom, left:right] = True
    return mask
