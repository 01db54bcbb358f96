"""Figures of what the mixer of a run makes of images."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from smmix_pl.callbacks.output.figure_saver import run_folder, save_figure
from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.checks import in_range
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.data.transforms import denormalize
from smmix_pl.mixing import Mixed, soft_labels
from smmix_pl.mixing.regions import least_attended, most_attended, paste
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.plots import MixedExample, MixedImage, mixing_figure
from smmix_pl.plots.mixing_figure import Window
from smmix_pl.seeding import run_seed, seed_of

DRAWS = 20
"""Number of tries to draw a mixer's own branch rather than Mixup."""


class Candidate(NamedTuple):
    """Image that may be drawn.

    Attributes:
        priority: Random number. The highest one of a class wins.
        image: Normalized image, `(3, H, W)`.
    """

    priority: float
    image: Tensor


class MixedImages(Callback):
    """Draws what the run's mixer makes of random validation images of different classes.

    Of mixers that alternate with Mixup, their own branch is drawn. Labels of SUMix are those of its
    CutMix, because its weights depend on the batch size. To request a figure at the next validation
    of a training, create a file named `draw` in the run folder. A figure of four rows at 224 pixels
    takes about 150 kB in W&B.

    Args:
        every_n_epochs: Epochs between two figures. Epochs without validation draw none. The last
            epoch of `trainer.max_epochs` is drawn too, if it is validated.
        examples: Number of rows, two images each. Fewer with few classes.
    """

    def __init__(self, every_n_epochs: int = 10, examples: int = 4) -> None:
        in_range("MixedImages.every_n_epochs", every_n_epochs, 1)
        in_range("MixedImages.examples", examples, 1)
        self.every_n_epochs = every_n_epochs
        self.examples = examples
        self._due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject strategies that shard the weights."""
        require_unsharded_weights(trainer, self)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to collect images if a figure is due or requested."""
        epoch = trainer.current_epoch + 1
        scheduled = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        drawing = trainer.is_global_zero and fitting
        self._due = drawing and (scheduled or _requested(trainer))
        self._rng = np.random.default_rng(seed_of(run_seed(), trainer.current_epoch))
        self._found: dict[int, Candidate] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images of highest priority, one per class."""
        if not self._due:
            return
        found = self._found
        for image, label in zip(batch[0], batch[1].tolist(), strict=True):
            priority = self._rng.random()
            if label not in found or priority > found[label].priority:
                found[label] = Candidate(priority, image)
            if len(found) > 2 * self.examples:
                del found[min(found, key=lambda kept: found[kept].priority)]
        # copied, because a view of an image keeps its batch in memory
        self._found = {k: kept._replace(image=kept.image.clone()) for k, kept in found.items()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and save the figure, with the trained weights."""
        if not self._due:
            return
        model, data = cast(SMMixModule, pl_module), require_image_data(trainer)
        classes = sorted(self._found, key=lambda label: self._found[label].priority)
        examples = []
        for target, source in zip(classes[::2], classes[1::2], strict=False):
            pair = torch.stack([self._found[label].image for label in (target, source)])
            labels = soft_labels(torch.tensor([target, source]), model.num_classes).to(pair.device)
            mixed = _mix_in_own_branch(model, pair, labels, self._rng)
            names = (data.class_names[target], data.class_names[source])
            drawn = {model.method: (mixed, (target, source))}
            examples.append(mixing_example(model, pair, names, drawn, data.mean, data.std))
        if examples:
            figure, shown = mixing_figure(examples), 2 * len(examples)
            save_figure(trainer, model, "val/mixing", figure, shown, photographs=True)
        self._found = {}


def mixing_example(
    model: SMMixModule,
    pair: Tensor,
    names: tuple[str, str],
    mixed: Mapping[str, tuple[Mixed, tuple[int, int]]],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> MixedExample:
    """Collect what the figure shows of one pair.

    Args:
        model: Module that trains on such images.
        pair: Normalized target and source, `(2, 3, H, W)`.
        names: Class names of target and source.
        mixed: The mixed pair, and the class indices of target and source in its labels, by mixer.
        mean: Mean of the normalization.
        std: Standard deviation of the normalization.
    """
    attention = model.guide_model.guide(pair).attention
    first, _ = next(iter(mixed.values()))
    covered, copied = _windows(first, pair, attention)

    def displayed(image: Tensor) -> Tensor:
        return denormalize(image.float().cpu(), mean, std)

    results = {}
    for mixer, (found, classes) in mixed.items():
        labels = _final_labels(model.backbone, found)[0].tolist()
        target, source = (labels[label] for label in classes)
        results[mixer] = MixedImage(displayed(found.images[0]), (target, source))
    return MixedExample(
        target=displayed(pair[0]),
        source=displayed(pair[1]),
        target_attention=attention[0].cpu(),
        source_attention=attention[1].cpu(),
        names=names,
        mixed=results,
        covered=covered,
        copied=copied,
    )


def _windows(mixed: Mixed, pair: Tensor, attention: Tensor) -> tuple[Window | None, Window | None]:
    """Return the windows that attention selects, if they make the mixed image."""
    side = int(mixed.notes.get("region_side", 0))
    if not side:
        return None, None
    to, origin = least_attended(attention[:1], side), most_attended(attention[1:], side)
    grid = (attention.shape[1], attention.shape[2])
    if not torch.equal(paste(pair[:1], pair[1:], to, origin, side, grid), mixed.images[:1]):
        return None, None  # the regions were random
    (row, column), (from_row, from_column) = to[0].tolist(), origin[0].tolist()
    return (row, column, side), (from_row, from_column, side)


@torch.no_grad()
def _final_labels(backbone: Backbone, mixed: Mixed) -> Tensor:
    """Return the labels of mixed images, also of mixers that compute them from attention."""
    if mixed.attentive_labels is None:
        return mixed.labels
    logits, _, attention, _ = backbone.features(mixed.images, with_attention=True)
    assert attention is not None
    return mixed.attentive_labels(attention, logits.float())


def _mix_in_own_branch(
    model: SMMixModule, pair: Tensor, labels: Tensor, rng: np.random.Generator
) -> Mixed:
    for _ in range(DRAWS):
        mixed = model.mixer(pair, labels, model.guide_model, rng)
        if mixed.notes.get("branch", 1):
            break
    return mixed


def _requested(trainer: Trainer) -> bool:
    """Return True if the run folder contains a file named `draw`, and remove it."""
    folder = run_folder(trainer)
    request = None if folder is None else folder / "draw"
    if request is None or not request.is_file():
        return False
    request.unlink()
    return True
