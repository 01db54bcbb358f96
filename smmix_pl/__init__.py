"""SMMix for vision transformers, in PyTorch Lightning.

data       images and class numbers, as LightningDataModules
mixing     a batch of them to one mixed batch; plain torch
models     timm models with an attention tap and a token head
losses     the paper's losses; plain torch
module     the LightningModule that joins them; callbacks measure and draw what it does
"""

from smmix_pl.data import CIFAR10, CIFAR100, Digits, ImageData, ImageNet
from smmix_pl.errors import InputError
from smmix_pl.mixing import CutMix, Mixed, Mixer, Mixup, NoMix, SMMix
from smmix_pl.models import Backbone
from smmix_pl.module import SMMixModule
from smmix_pl.optim import OptimRecipe

__version__ = "0.1.0"

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Backbone",
    "CutMix",
    "Digits",
    "ImageData",
    "ImageNet",
    "InputError",
    "Mixed",
    "Mixer",
    "Mixup",
    "NoMix",
    "OptimRecipe",
    "SMMix",
    "SMMixModule",
]
