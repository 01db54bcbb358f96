"""Data sets as LightningDataModules, one class each."""

from smmix_pl.data.aircraft import Aircraft
from smmix_pl.data.base import ImageData
from smmix_pl.data.cars import StanfordCars
from smmix_pl.data.cifar import CIFAR10, CIFAR100
from smmix_pl.data.corruptions import CIFAR10C, CIFAR100C, ImageNetC
from smmix_pl.data.cub import CUB
from smmix_pl.data.digits import Digits
from smmix_pl.data.files import FileData
from smmix_pl.data.flowers import Flowers102
from smmix_pl.data.folder import Folder
from smmix_pl.data.imagenet import ImageNet
from smmix_pl.data.imagenet_variants import (
    ImageNetA,
    ImageNetO,
    ImageNetR,
    ImageNetReaL,
    ImageNetSketch,
    ImageNetV2,
)
from smmix_pl.data.inaturalist import INaturalist
from smmix_pl.data.pets import OxfordPets
from smmix_pl.data.streaming import HuggingFace, LitData, Shards
from smmix_pl.data.tiny_imagenet import TinyImageNet
from smmix_pl.data.transforms import EvalTransform, TrainTransform

__all__ = [
    "CIFAR10",
    "CIFAR10C",
    "CIFAR100",
    "CIFAR100C",
    "CUB",
    "Aircraft",
    "Digits",
    "EvalTransform",
    "FileData",
    "Flowers102",
    "Folder",
    "HuggingFace",
    "INaturalist",
    "ImageData",
    "ImageNet",
    "ImageNetA",
    "ImageNetC",
    "ImageNetO",
    "ImageNetR",
    "ImageNetReaL",
    "ImageNetSketch",
    "ImageNetV2",
    "LitData",
    "OxfordPets",
    "Shards",
    "StanfordCars",
    "TinyImageNet",
    "TrainTransform",
]
