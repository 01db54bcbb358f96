"""Pictures of what SMMix does to a batch."""

from collections.abc import Sequence
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from smmix_pl.callbacks.output.figure_saver import run_folder, save_figure
from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.checks import in_range
from smmix_pl.data.transforms import denormalize
from smmix_pl.mixing.regions import least_attended, most_attended, paste
from smmix_pl.mixing.smmix import target_fraction
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.plots import MixedExample, mixing_figure


class MixedImages(Callback):
    """Draws how SMMix would mix the first validation images, with the model as it is then.

    A file named ``draw`` in the run's folder asks for a picture at the next validation. One of four
    rows at 224 pixels takes about 150 kB in W&B.

    Args:
        every_n_epochs: At least 1, of the epochs that are validated; the last one of ``max_epochs``
            is drawn too.
        examples: Number of rows, at least 1; no more than a validation batch has images.
    """

    def __init__(self, every_n_epochs: int = 10, examples: int = 4) -> None:
        in_range("MixedImages' every_n_epochs", every_n_epochs, 1)
        in_range("MixedImages' examples", examples, 1)
        self.every_n_epochs = every_n_epochs
        self.examples = examples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what the motivating pass cannot read."""
        require_unsharded_weights(trainer, self)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if it is time."""
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if not (due or self._asked(trainer)):
            return
        images, classes = batch
        rows = min(self.examples, len(images))
        ends = [*range(rows), *range(-rows, 0)]  # far apart, so of other classes
        data = trainer.datamodule  # type: ignore[attr-defined]
        names = [data.class_names[label] for label in classes[ends].tolist()]
        backbone = cast(SMMixModule, pl_module).backbone
        examples = mixing_examples(
            backbone, images[ends], names, side=max(1, min(backbone.grid) // 2)
        )
        figure = mixing_figure([displayable(one, data.mean, data.std) for one in examples])
        save_figure(trainer, "train/mixing", figure, photographs=True)

    def _asked(self, trainer: Trainer) -> bool:
        folder = run_folder(trainer)
        asked = folder is not None and (folder / "draw").exists()
        if folder is not None and asked:
            (folder / "draw").unlink()
        return asked


def mixing_examples(
    backbone: Backbone, images: Tensor, names: Sequence[str], side: int
) -> list[MixedExample]:
    """What max-min mixing does to the first half of a batch, each image with its source.

    Args:
        backbone: The model that attends.
        images: ``(2 n, 3, H, W)``, normalized; image i is mixed with image 2 n - 1 - i.
        names: Class name of each image.
        side: Region side in tokens.

    Returns:
        n examples, images still normalized, on the CPU.
    """
    attention = backbone.guide(images).attention
    to, origin = least_attended(attention, side), most_attended(attention.flip(0), side)
    mixed = paste(images, images.flip(0), to, origin, side, backbone.grid)
    lam = target_fraction(side, backbone.grid)
    return [
        MixedExample(
            target=images[i].cpu(),
            source=images[-1 - i].cpu(),
            mixed=mixed[i].cpu(),
            target_attention=attention[i].cpu(),
            source_attention=attention[-1 - i].cpu(),
            covered=(*to[i].tolist(), side),
            copied=(*origin[i].tolist(), side),
            names=(names[i], names[-1 - i]),
            lam=float(lam),
        )
        for i in range(len(images) // 2)
    ]


def displayable(
    example: MixedExample, mean: tuple[float, ...], std: tuple[float, ...]
) -> MixedExample:
    """An example whose images are in [0, 1] again."""
    target, source, mixed = (
        denormalize(image, mean, std) for image in (example.target, example.source, example.mixed)
    )
    peers = {name: denormalize(image, mean, std) for name, image in example.peers.items()}
    return example._replace(target=target, source=source, mixed=mixed, peers=peers)
