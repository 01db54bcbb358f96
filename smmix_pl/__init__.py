"""SMMix for vision transformers, in PyTorch and Lightning.

The mixers, losses, and backbones need only torch, timm, and NumPy. Names are imported when first
used, so that `from smmix_pl import SMMix` does not load Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smmix_pl.data import CIFAR10, CIFAR100, Digits, ImageData, ImageNet
    from smmix_pl.errors import InputError
    from smmix_pl.losses import SMMixLoss
    from smmix_pl.mixing import (
        AttentiveCutMix,
        CutMix,
        FMix,
        GridMix,
        MergeMix,
        Mixed,
        Mixer,
        MixPro,
        Mixup,
        MixupCutMix,
        NoMix,
        PuzzleMix,
        ResizeMix,
        SaliencyMix,
        SMMix,
        SUMix,
        TdAttenMix,
        TLAlign,
        TokenMix,
        TransMix,
        soft_labels,
    )
    from smmix_pl.models import Backbone
    from smmix_pl.module import SMMixModule
    from smmix_pl.optim import OptimConfig

__version__ = "0.1.0"

_MODULES = {
    "data": ("CIFAR10", "CIFAR100", "Digits", "ImageData", "ImageNet"),
    "errors": ("InputError",),
    "losses": ("SMMixLoss",),
    "mixing": (
        *("AttentiveCutMix", "CutMix", "FMix", "GridMix", "MergeMix", "MixPro", "Mixed", "Mixer"),
        *("Mixup", "MixupCutMix", "NoMix", "PuzzleMix", "ResizeMix", "SMMix", "SUMix"),
        *("SaliencyMix", "TLAlign", "TdAttenMix", "TokenMix", "TransMix", "soft_labels"),
    ),
    "models": ("Backbone",),
    "module": ("SMMixModule",),
    "optim": ("OptimConfig",),
}
_SOURCES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "AttentiveCutMix",
    "Backbone",
    "CutMix",
    "Digits",
    "FMix",
    "GridMix",
    "ImageData",
    "ImageNet",
    "InputError",
    "MergeMix",
    "MixPro",
    "Mixed",
    "Mixer",
    "Mixup",
    "MixupCutMix",
    "NoMix",
    "OptimConfig",
    "PuzzleMix",
    "ResizeMix",
    "SMMix",
    "SMMixLoss",
    "SMMixModule",
    "SUMix",
    "SaliencyMix",
    "TLAlign",
    "TdAttenMix",
    "TokenMix",
    "TransMix",
    "soft_labels",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
