"""The datamodule of a trainer, typed."""

from lightning.pytorch import Trainer

from smmix_pl.data.base import BaseData
from smmix_pl.data.datamodule import ImageData
from smmix_pl.errors import InputError


def base_data(trainer: Trainer) -> BaseData | None:
    """Return the datamodule of a trainer if it is one of this package."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data if isinstance(data, BaseData) else None


def require_base_data(trainer: Trainer) -> BaseData:
    """Return the datamodule of a trainer.

    Raises:
        InputError: It is not a `BaseData`.
    """
    data = base_data(trainer)
    if data is None:
        raise InputError(
            "data: callbacks such as ResultsFile need a datamodule of this package, or one that "
            "derives from it. Use one, or remove them from trainer.callbacks."
        )
    return data


def image_data(trainer: Trainer) -> ImageData | None:
    """Return the datamodule of a trainer if it is an `ImageData`.

    Other datamodules and plain data loaders can train an `SMMixModule` too.
    """
    data = base_data(trainer)
    return data if isinstance(data, ImageData) else None


def require_image_data(trainer: Trainer) -> ImageData:
    """Return the datamodule of a trainer.

    Raises:
        InputError: It is not an `ImageData`.
    """
    data = image_data(trainer)
    if data is None:
        raise InputError(
            "data: callbacks such as Calibration need a datamodule that derives from "
            "smmix_pl.ImageData. Use one, or remove them from trainer.callbacks."
        )
    return data
