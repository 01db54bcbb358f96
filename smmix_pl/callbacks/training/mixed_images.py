"""Figures of how SMMix mixes images."""

from collections.abc import Sequence
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl.callbacks.output.figure_saver import run_folder, save_figure
from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.checks import in_range
from smmix_pl.data.trainer_datamodule import require_image_data
from smmix_pl.data.transforms import denormalize
from smmix_pl.mixing.regions import least_attended, most_attended, paste
from smmix_pl.mixing.smmix import target_fraction
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.plots import MixedExample, mixing_figure


class MixedImages(Callback):
    """Draws how SMMix would mix the first validation images with the current model.

    To request a figure at the next validation, create a file named `draw` in the run folder. A
    figure of four rows at 224 pixels takes about 150 kB in W&B.

    Args:
        every_n_epochs: Epochs between two figures. Epochs without validation draw none. The last
            epoch of `trainer.max_epochs` is drawn too, if it is validated.
        examples: Number of rows. At most one validation batch is used.
    """

    def __init__(self, every_n_epochs: int = 10, examples: int = 4) -> None:
        in_range("MixedImages.every_n_epochs", every_n_epochs, 1)
        in_range("MixedImages.examples", examples, 1)
        self.every_n_epochs = every_n_epochs
        self.examples = examples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject strategies that shard the weights."""
        require_unsharded_weights(trainer, self)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw and save a figure if one is due or requested."""
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        if not due and not _requested(trainer):
            return
        images, classes = batch
        rows = min(self.examples, len(images))
        pairs = [*range(rows), *range(-rows, 0)]  # far apart, so usually of different classes
        data = require_image_data(trainer)
        names = [data.class_names[label] for label in classes[pairs].tolist()]
        backbone = cast(SMMixModule, pl_module).backbone
        side = max(1, min(backbone.grid) // 2)
        examples = mixing_examples(backbone, images[pairs], names, side)
        figure = mixing_figure([displayable(one, data.mean, data.std) for one in examples])
        save_figure(trainer, "train/mixing", figure, photographs=True)


def mixing_examples(
    backbone: Backbone, images: Tensor, names: Sequence[str], side: int
) -> list[MixedExample]:
    """Mix the first half of a batch with the second half by max-min regions.

    Args:
        backbone: Model that provides the attention.
        images: Normalized images `(2n, 3, H, W)`. Image i is mixed with image 2n - 1 - i.
        names: Class name of each image.
        side: Region side in tokens.

    Returns:
        n examples on the CPU, with images still normalized.
    """
    attention = backbone.guide(images).attention
    covered, copied = least_attended(attention, side), most_attended(attention.flip(0), side)
    mixed = paste(images, images.flip(0), covered, copied, side, backbone.grid)
    lam = target_fraction(side, backbone.grid)
    return [
        MixedExample(
            target=images[i].cpu(),
            source=images[-1 - i].cpu(),
            mixed=mixed[i].cpu(),
            target_attention=attention[i].cpu(),
            source_attention=attention[-1 - i].cpu(),
            covered=(*covered[i].tolist(), side),
            copied=(*copied[i].tolist(), side),
            names=(names[i], names[-1 - i]),
            lam=float(lam),
        )
        for i in range(len(images) // 2)
    ]


def displayable(
    example: MixedExample, mean: tuple[float, ...], std: tuple[float, ...]
) -> MixedExample:
    """Return an example with images in [0, 1]."""
    target, source, mixed = (
        denormalize(image, mean, std) for image in (example.target, example.source, example.mixed)
    )
    peers = {name: denormalize(image, mean, std) for name, image in example.peers.items()}
    return example._replace(target=target, source=source, mixed=mixed, peers=peers)


def _requested(trainer: Trainer) -> bool:
    """Return True if the run folder contains a file named `draw`, and remove it."""
    folder = run_folder(trainer)
    request = None if folder is None else folder / "draw"
    if request is None or not request.is_file():
        return False
    request.unlink()
    return True
