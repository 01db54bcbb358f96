"""Object detection and instance segmentation with a trained backbone."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from smmix_pl.checks import one_of
from smmix_pl.data import COCO
from smmix_pl.data.trainer_datamodule import base_data
from smmix_pl.downstream.detectors import DETECTORS, FIRST_CLASS, Detections, create_detector
from smmix_pl.downstream.transfer import TransferModule
from smmix_pl.errors import InputError
from smmix_pl.metrics.average_precision import AveragePrecision
from smmix_pl.optim import OptimConfig

LOSSES = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal_box",
    "loss_classifier": "box_class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "classification": "box_class",
    "bbox_regression": "box",
}
"""Names of losses by torchvision's."""
HALF = ("16-true", "bf16-true")
"""Precisions that cast the complete model."""
Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class ObjectDetection(TransferModule):
    """Trains Mask R-CNN or RetinaNet on the maps of a trained backbone.

    Mask R-CNN also segments the objects. Average precision is computed at the images' own size.

    Args:
        num_classes: See `TransferModule`, as for all arguments that are not listed here.
        detector: `mask_rcnn` or `retinanet`, of torchvision.
        detector_args: Further numbers for torchvision's `MaskRCNN` or `RetinaNet`, such as
            `box_score_thresh`.
    """

    task = "object detection"

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
        detector: Literal["mask_rcnn", "retinanet"] = "mask_rcnn",
        detector_args: dict[str, Any] | None = None,
        optim: OptimConfig = OptimConfig(
            lr=1e-4, lr_batch=16, weight_decay=1e-4, schedule="steps", warmup_steps=500
        ),
    ) -> None:
        one_of("model.detector", detector, DETECTORS)
        super().__init__(
            *(num_classes, image_size, batch_size, mean, std, backbone, backbone_args),
            *(pretrained, init_from, init_image_size, frozen, norm_maps, optim),
        )
        self.first_class = FIRST_CLASS[detector]
        self.has_masks = detector == "mask_rcnn"
        self.head = create_detector(
            detector, self.backbone, num_classes, image_size, detector_args or {}
        )
        if not self.has_masks:  # RetinaNet does not read the first map
            self.backbone.norms[0] = self.backbone.scales[0] = nn.Identity()
        self.average_precision = AveragePrecision(self.has_masks)

    def setup(self, stage: str) -> None:
        """Check precision and data.

        Raises:
            InputError: Boxes would be rounded, or masks are missing.
        """
        if self.trainer.precision in HALF:
            raise InputError(
                f"trainer.precision={self.trainer.precision}: box coordinates need float32. Use "
                f"{self.trainer.precision.replace('true', 'mixed')}."
            )
        data = base_data(self.trainer)
        if self.has_masks and isinstance(data, COCO) and not data.masks:
            raise InputError(
                "data.masks=false: mask_rcnn needs masks. Set data.masks=true, or "
                "model.detector=retinanet."
            )

    def forward(self, images: list[Tensor]) -> list[Detections]:
        """Return the detections in normalized images `(3, H, W)` of any sizes, in their pixels.

        The model must be in evaluation mode. Labels are class indices.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return [
            self._detections(found, size, size)
            for found, size in zip(self._detect(images), sizes, strict=True)
        ]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, targets = batch
        truth = [
            {
                **one,
                "boxes": one["boxes"].to(images[0].dtype),
                "labels": one["labels"] + self.first_class,
            }
            for one in targets
        ]
        losses = self._detect(images, truth)
        return {"loss": self.log_losses({LOSSES[name]: loss for name, loss in losses.items()})}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Detections]]:
        """Evaluate images one by one, and return their `predictions` in pixels of the files."""
        predictions = []
        for image, target in zip(*batch, strict=True):
            height, width = target["size"].tolist()
            [found] = self._detect([image])
            size = (image.shape[-2], image.shape[-1])
            predictions.append(self._detections(found, size, (height, width)))
            self.average_precision.update(predictions[-1:], [target])
        return {"predictions": predictions}

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """Reset the average precision."""
        self.average_precision.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the average precision, on every rank."""
        self._log_precision("val")

    def on_test_epoch_end(self) -> None:
        """Log the average precision, on every rank."""
        self._log_precision("test")

    def _log_precision(self, stage: str) -> None:
        found = self.average_precision.compute()
        self.log(f"{stage}/box_map", found.pop("box_map"), prog_bar=True)
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()})

    def _detect(self, images: list[Tensor], targets: Any = None) -> Any:
        """Run the detector. Its heads are in float32: bfloat16 would move boxes by pixels."""
        device = images[0].device.type
        self.head.backbone.autocast = torch.autocast(
            device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        )
        with torch.autocast(device, enabled=False):
            return self.head(images, targets)

    def _detections(
        self, found: Detections, size: tuple[int, int], final: tuple[int, int]
    ) -> Detections:
        """Return detections at another size, with class indices and boolean masks `(n, H, W)`."""
        detections: Detections = self.head.transform.resized(found, size, final)
        detections["labels"] = detections["labels"] - self.first_class
        if self.has_masks:
            detections["masks"] = detections["masks"][:, 0] > 0.5
        return detections
