"""Average precision of detected boxes and masks, as COCO defines it."""

from itertools import chain, zip_longest
from typing import Any

from torch import Tensor, distributed
from torchmetrics.detection import MeanAveragePrecision

from smmix_pl.errors import InputError

RANGES = ("map_small", "map_medium", "map_large")
"""Objects of fewer than 32 x 32, 96 x 96, and more pixels."""


class AveragePrecision(MeanAveragePrecision):
    """Average precision of boxes, and of masks, over all ranks.

    torchmetrics gathers one tensor per image, which needs the same number of images on all ranks.

    Args:
        masks: Evaluate masks too.

    Raises:
        InputError: The library that evaluates is not installed.
    """

    def __init__(self, masks: bool) -> None:
        coco_masks()
        kinds = ("bbox", "segm") if masks else ("bbox",)
        super().__init__(iou_type=kinds, backend="faster_coco_eval", sync_on_compute=False)

    def compute(self) -> dict[str, Tensor]:
        """Return `box_map`, `box_map_50`, `mask_map`, and so on.

        Without an object, the precision is 0. Ranges of sizes without an object are excluded.
        """
        own = self.metric_state
        try:
            self._set(_gathered(own))
            found = super().compute()
        finally:
            self._set(own)
        kinds = {"box": "bbox_", "mask": "segm_"} if "segm" in self.iou_type else {"box": ""}
        return {
            f"{kind}_{name}": found[f"{prefix}{name}"].clamp(min=0)
            for kind, prefix in kinds.items()
            for name in ("map", "map_50", "map_75", *RANGES)
            if name not in RANGES or found[f"{prefix}{name}"] >= 0
        }

    def _set(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def coco_masks() -> Any:
    """Return the module with COCO's functions of masks.

    Raises:
        InputError: It is not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise InputError(
            "model=ObjectDetection: needs faster-coco-eval. Run `pip install "
            "'smmix-pl[downstream]'`."
        ) from error
    return mask


def _gathered(state: dict[str, Any]) -> dict[str, Any]:
    """Return the lists of all ranks on the CPU, in the order in which images are dealt out."""
    own = {name: [_on_cpu(value) for value in values] for name, values in state.items()}
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return {
        name: [
            value
            for value in chain(*zip_longest(*(state[name] for state in states)))
            if value is not None
        ]
        for name in own
    }


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
