"""Semantic segmentation with a trained backbone."""

import re
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from smmix_pl.checks import in_range, one_of
from smmix_pl.data.dense import IGNORED
from smmix_pl.data.trainer_datamodule import base_data
from smmix_pl.downstream.decoders import SemanticFPN, UPerNet, classifier, conv
from smmix_pl.downstream.sliding import slide, whole
from smmix_pl.downstream.transfer import TransferModule
from smmix_pl.errors import InputError
from smmix_pl.metrics.segmentation_scores import segmentation_scores
from smmix_pl.optim import OptimConfig

DECODERS = {"fpn": SemanticFPN, "upernet": UPerNet}
AUXILIARY = {True: 3, False: 2}
"""Level that the auxiliary head reads, by whether the backbone is plain, as in mmsegmentation: the
last one of ViTs, and stride 16 of Swin."""
Batch = tuple[Any, Any]


class SegmentationHead(nn.Module):
    """Decoder and classifier, and the auxiliary FCN head of one level.

    Args:
        decoder: `fpn` or `upernet`.
        channels: Channels of the pyramid's maps.
        classes: Number of classes.
        auxiliary: Level that the auxiliary head reads; None for no such head.
    """

    def __init__(
        self, decoder: str, channels: list[int], classes: int, auxiliary: int | None
    ) -> None:
        super().__init__()
        self.decoder = DECODERS[decoder](channels)
        self.classifier = classifier(self.decoder.width, classes)
        self.auxiliary: nn.Module | None = None
        if auxiliary is not None:
            self.auxiliary = nn.Sequential(
                conv(channels[auxiliary], 256, 3), classifier(256, classes)
            )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return class logits `(B, K, H / 4, W / 4)`."""
        logits: Tensor = self.classifier(self.decoder(maps))
        return logits


class SemanticSegmentation(TransferModule):
    """Trains Semantic FPN or UPerNet on the maps of a trained backbone.

    Scores are computed at the masks' own size. Pixels with the mask value 255 are ignored.

    Args:
        num_classes: See `TransferModule`, as for all arguments that are not listed here.
        decoder: `fpn` (Semantic FPN) or `upernet`, as mmsegmentation defines them.
        auxiliary_weight: Weight of the loss of an auxiliary FCN head, on the last map of plain
            backbones and the one at stride 16 of others; 0 for none. UPerNet's recipes use 0.4.
        inference: `whole` evaluates an image in one pass, `slide` in windows of the training size.
        overlap: Fraction of a window that the next one covers too.
    """

    task = "semantic segmentation"

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        batch_size: int,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        backbone: str = "deit_small_patch16_224",
        backbone_args: dict[str, Any] | None = None,
        pretrained: bool = False,
        init_from: str | None = None,
        init_image_size: tuple[int, int] | None = None,
        frozen: bool = False,
        norm_maps: bool = False,
        decoder: Literal["fpn", "upernet"] = "fpn",
        auxiliary_weight: float = 0.0,
        inference: Literal["whole", "slide"] = "whole",
        overlap: float = 1 / 3,
        optim: OptimConfig = OptimConfig(
            lr=1e-4, lr_batch=16, weight_decay=1e-4, schedule="poly", power=0.9, min_lr=0.0
        ),
    ) -> None:
        one_of("model.decoder", decoder, DECODERS)
        one_of("model.inference", inference, ("whole", "slide"))
        in_range("model.auxiliary_weight", auxiliary_weight, 0, hint="The recipes use 0.4")
        in_range("model.overlap", overlap, 0, 0.95)
        if decoder == "upernet" and batch_size < 2:
            raise InputError(
                f"data.batch_size={batch_size}: the batch norm of UPerNet's pooled maps needs at "
                "least 2 images. Raise it, or set model.decoder=fpn."
            )
        super().__init__(
            *(num_classes, image_size, batch_size, mean, std, backbone, backbone_args),
            *(pretrained, init_from, init_image_size, frozen, norm_maps, optim),
        )
        self.level = AUXILIARY[self.backbone.plain]
        auxiliary = self.level if auxiliary_weight > 0 else None
        self.head: SegmentationHead = SegmentationHead(
            decoder, self.backbone.channels, num_classes, auxiliary
        )
        self.auxiliary_weight = auxiliary_weight
        window = partial(slide, window=image_size, overlap=overlap)
        self.inference = (
            partial(whole, multiple=self.backbone.multiple) if inference == "whole" else window
        )
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED)

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits `(B, K, H, W)` of normalized images `(B, 3, H, W)`."""
        return F.interpolate(self.head(self.backbone(images)), images.shape[-2:], mode="bilinear")

    def segment(self, image: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return the classes `(h, w)` of an image `(3, H, W)`, at another size.

        Raises:
            InputError: The backbone does not take images of this size.
        """
        try:
            logits = self.inference(self, image[None])
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" in str(error):
                raise
            height, width = image.shape[-2:]
            raise InputError(
                f"model.backbone={self.hparams['backbone']}: gives no maps at {height} x {width} "
                f"pixels ({str(error)[:200]}). Set model.inference=slide."
            ) from error
        return F.interpolate(logits.float(), size, mode="bilinear")[0].argmax(dim=0)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss of a batch of crops and masks `(B, H, W)`."""
        images, masks = batch
        maps = self.backbone(images)
        losses = {"segmentation": _pixel_loss(self.head(maps), masks)}
        if (auxiliary := self.head.auxiliary) is not None:
            logits = auxiliary(maps[self.level])
            losses["auxiliary"] = self.auxiliary_weight * _pixel_loss(logits, masks)
        return {"loss": self.log_losses(losses)}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Tensor]]:
        """Evaluate images one by one, and return their `predictions` `(h, w)`."""
        predictions = []
        for image, mask in zip(*batch, strict=True):
            predictions.append(self.segment(image, mask.shape))
            self.confusion.update(predictions[-1][None], mask[None])
        return {"predictions": predictions}

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """Reset the confusion matrix."""
        self.confusion.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the scores, on every rank."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores and the IoU of each class that occurs."""
        iou = self._log_scores("test").tolist()
        data = base_data(self.trainer)
        names = data.class_names if data is not None else list(map(str, range(len(iou))))
        present = {name: value for name, value in zip(names, iou, strict=True) if value == value}
        self.log_dict({f"test/iou_{_slug(name)}": value for name, value in present.items()})

    def _log_scores(self, stage: str) -> Tensor:
        scores = segmentation_scores(self.confusion.compute())
        self.log(f"{stage}/miou", scores.miou, prog_bar=True)
        self.log(f"{stage}/mean_accuracy", scores.mean_accuracy)
        self.log(f"{stage}/pixel_accuracy", scores.pixel_accuracy)
        return scores.iou


def _pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross entropy, averaged over all pixels as in mmsegmentation, ignored ones too."""
    logits = F.interpolate(logits.float(), masks.shape[-2:], mode="bilinear")
    return F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none").mean()


def _slug(name: str) -> str:
    """Return a class name as a part of a metric key."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
