"""Data sets as LightningDataModules, one class each."""

from smmix_pl.data.base import ImageData
from smmix_pl.data.cifar import CIFAR10, CIFAR100
from smmix_pl.data.digits import Digits
from smmix_pl.data.imagenet import ImageNet
from smmix_pl.data.transforms import EvalTransform, TrainTransform

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Digits",
    "EvalTransform",
    "ImageData",
    "ImageNet",
    "TrainTransform",
]
