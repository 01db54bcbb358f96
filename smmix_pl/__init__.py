"""SMMix for vision transformers, in PyTorch Lightning.

data       images and class numbers, as LightningDataModules
mixing     a batch of them to one mixed batch; plain torch
models     timm models with an attention tap and a token head
losses     the paper's losses; plain torch
module     the LightningModule that joins them; callbacks measure and draw what it does
"""

from smmix_pl.data import CIFAR10, CIFAR100, Digits, ImageData, ImageNet
from smmix_pl.errors import InputError
from smmix_pl.mixing import (
    AttentiveCutMix,
    CutMix,
    FMix,
    GridMix,
    Mixed,
    Mixer,
    MixPro,
    Mixup,
    MixupCutMix,
    NoMix,
    ResizeMix,
    SaliencyMix,
    SMMix,
    TokenMix,
    TransMix,
)
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.optim import OptimRecipe

__version__ = "0.1.0"

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
    "MixPro",
    "Mixed",
    "Mixer",
    "Mixup",
    "MixupCutMix",
    "NoMix",
    "OptimRecipe",
    "ResizeMix",
    "SMMix",
    "SMMixModule",
    "SaliencyMix",
    "TokenMix",
    "TransMix",
]
