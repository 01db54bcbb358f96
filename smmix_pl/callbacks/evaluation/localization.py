"""How well attention finds the objects of an image, without training."""

from collections.abc import Sequence
from typing import get_args

from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation, on_device
from smmix_pl.checks import in_range, one_of
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.objects import VOID, require_objects, visible_objects
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.data.transforms import denormalize
from smmix_pl.errors import InputError
from smmix_pl.metrics import BoxAccuracy, MaskJaccard
from smmix_pl.metrics.box_overlap import predicted_box
from smmix_pl.mixing import Readout
from smmix_pl.models.attention import AttentionTap, attention_of_heads
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.tokens import similarity_to_output
from smmix_pl.module import SMMixModule
from smmix_pl.plots.localization_figure import LocalizedObject, localization_figure
from smmix_pl.runs.results import EvalResult

FEW = 3
"""Largest number of objects in a readable picture."""


class Localization(Evaluation):
    """Localization of objects by the attention of the last block, or by similarity.

    For datasets that derive from `ObjectData`: with masks, the Jaccard index (Naseer et al., 2021);
    with boxes, CorLoc and MaxBoxAccV2 (Choe et al., 2020). Boxes and masks go through the resize
    and crop of the test images. See `MaskJaccard` and `BoxAccuracy` for the protocols.

    Logged keys, each for every readout, such as `class`, and in [0, 1]:
        `test/jaccard_best_head_class`: Jaccard index of the best head of each class.
        `test/jaccard_class`: Jaccard index of the mean over heads.
        `test/corloc_class`: Images whose box overlaps an object by at least one half.
        `test/max_box_acc_class_50`: Box accuracy at an IoU of 50% and its best threshold; also at
            30 and 70.
        `test/max_box_acc_v2_class`: Mean of the three.

    Args:
        readouts: What the map is: `class`, the attention of the class token; `tokens`, that of all
            image tokens, as in SMMix; `similarity` of each token to the output; or `rollout`. See
            `GuideConfig`.
        mass: Fraction of the map that the tokens of a mask hold, for the Jaccard index.
        box_mass: Fraction of the map that the tokens of CorLoc's box hold.
        thresholds: Number of thresholds of MaxBoxAccV2, at least 2.
        pictures: Number of images to draw, evenly over those with at most three objects.
    """

    needs_one_class = False

    def __init__(
        self,
        readouts: Sequence[Readout] = ("class", "tokens", "similarity"),
        mass: float = 0.9,
        box_mass: float = 0.6,
        thresholds: int = 100,
        pictures: int = 5,
    ) -> None:
        if not readouts:
            raise InputError("Localization.readouts=[]: empty. Set at least one.")
        for readout in readouts:
            one_of("Localization.readouts", readout, set(get_args(Readout)) - {"merged"})
        in_range("Localization.mass", mass, 0.01, 1, "IPViT uses 0.9")
        in_range("Localization.box_mass", box_mass, 0.01, 1, "DINO uses 0.6")
        in_range("Localization.thresholds", thresholds, 2, 1000)
        in_range("Localization.pictures", pictures, 0)
        self.readouts = list(dict.fromkeys(readouts))
        self.mass, self.box_mass, self.thresholds = mass, box_mass, thresholds
        self.pictures = pictures

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Read the annotations and reset the metrics.

        Raises:
            InputError: The dataset has no objects, images may be skipped, or the model has no such
                readout.
        """
        data = require_objects(require_image_data(trainer), type(self).__name__)
        self.data, self.annotations = data, data.annotations()
        mine = range(trainer.global_rank, len(self.annotations), trainer.world_size)
        few = [place for place in mine if len(self.annotations[place].boxes) <= FEW] or mine
        self.shown = set(few[:: -(-len(few) // max(1, self.pictures))][: self.pictures])
        self.taps = {readout: _tap(model.backbone, readout, data) for readout in self.readouts}
        self.passes = len(self.readouts)
        self.jaccard = {name: on_device(MaskJaccard(self.mass, VOID), model) for name in self.taps}
        self.boxes = {
            name: on_device(BoxAccuracy(self.box_mass, self.thresholds), model)
            for name in self.taps
        }
        self.drawn: list[LocalizedObject] = []

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        data, size = self.data, self.data.image_size
        maps = {name: self._maps(batch, name) for name in self.readouts}
        for index, place in enumerate(batch.places):
            objects = visible_objects(self.annotations[place], data.eval_recipe, size)
            means = {name: found[index].mean(dim=0).cpu() for name, found in maps.items()}
            for name, found in maps.items():
                if objects.mask is not None:
                    self.jaccard[name].update(found[index], objects.mask)
                self.boxes[name].update(means[name], objects.boxes, size)
            if place in self.shown:
                image = denormalize(batch.images[index].float(), data.mean, data.std).cpu()
                predicted = {n: predicted_box(one, self.box_mass, size) for n, one in means.items()}
                self.drawn.append(LocalizedObject(image, *objects, means, predicted))

    def compute(self, images: int) -> EvalResult:
        """Return the metrics of every readout, as far as the dataset has masks and boxes."""
        scalars: dict[str, float] = {}
        for name in self.readouts:
            overlap, boxes = self.jaccard[name].compute(), self.boxes[name].compute()
            scalars[f"jaccard_best_head_{name}"] = overlap["best_head"]
            scalars[f"jaccard_{name}"] = overlap["mean_map"]
            scalars[f"corloc_{name}"] = boxes.corloc
            scalars[f"max_box_acc_v2_{name}"] = boxes.max_box_acc_v2
            for iou, value in boxes.max_box_acc.items():
                scalars[f"max_box_acc_{name}_{100 * iou:g}"] = value
        protocol = {
            "mass": self.mass,
            "box_mass": self.box_mass,
            "thresholds": self.thresholds,
            "image_size": list(self.data.image_size),
            "crop_ratio": self.data.eval_recipe.crop_pct,
            "crop_mode": self.data.eval_recipe.crop_mode,
            "void": "excluded",
        }
        known = {key: value for key, value in scalars.items() if value == value}  # not NaN
        return EvalResult(protocol, images, known)

    def figures(self, result: EvalResult) -> dict[str, Figure]:
        """Return images with their objects and each map."""
        return {"localization": localization_figure(self.drawn)} if self.drawn else {}

    def _maps(self, batch: EvalBatch, readout: Readout) -> Tensor:
        """Return what each head attends to, `(B, h, G_h, G_w)`; similarity has one map."""
        backbone, tap = batch.model.backbone, self.taps[readout]
        with batch.trainer.precision_plugin.forward_context():
            if tap is None:
                features = backbone.model.forward_features(batch.images)
                similarity = similarity_to_output(backbone.model, features)
                return similarity.unflatten(1, backbone.grid)[:, None]
            with tap.record() as recorded:
                backbone.model(batch.images)
        return attention_of_heads(recorded[-1], backbone.grid, readout)


def _tap(backbone: Backbone, readout: Readout, data: ImageData) -> AttentionTap | None:
    """Return the tap of a readout, if it reads attention."""
    try:  # checks the map of the readout
        config = GuideConfig(readout=readout)
        view = Backbone(backbone.model, None, data.image_size, token_head="shared", guide=config)
    except InputError as error:
        raise InputError(
            f"Localization.readouts={readout}: not available in this model ({error}) Remove it."
        ) from error
    return view.tap
