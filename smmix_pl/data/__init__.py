"""Datasets, one LightningDataModule each."""

from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.datasets.ade20k import ADE20K
from smmix_pl.data.datasets.aircraft import Aircraft
from smmix_pl.data.datasets.camvid import CamVid
from smmix_pl.data.datasets.cars import StanfordCars
from smmix_pl.data.datasets.cifar import CIFAR10, CIFAR100
from smmix_pl.data.datasets.coco import COCO
from smmix_pl.data.datasets.coco_objects import COCOObjects
from smmix_pl.data.datasets.corrupted import CIFAR10C, CIFAR100C, ImageNetC
from smmix_pl.data.datasets.cub import CUB
from smmix_pl.data.datasets.digits import Digits
from smmix_pl.data.datasets.flowers import Flowers102
from smmix_pl.data.datasets.folder import Folder
from smmix_pl.data.datasets.huggingface import HuggingFace
from smmix_pl.data.datasets.imagenet import ImageNet
from smmix_pl.data.datasets.imagenet_variants import (
    ImageNetA,
    ImageNetO,
    ImageNetR,
    ImageNetReaL,
    ImageNetSketch,
    ImageNetV2,
)
from smmix_pl.data.datasets.imagenette import Imagenette
from smmix_pl.data.datasets.inaturalist import INaturalist
from smmix_pl.data.datasets.label_file import LabelFile
from smmix_pl.data.datasets.litdata_chunks import LitData
from smmix_pl.data.datasets.pets import OxfordPets
from smmix_pl.data.datasets.segmentation_folder import SegmentationFolder
from smmix_pl.data.datasets.shards import Shards
from smmix_pl.data.datasets.table import Table
from smmix_pl.data.datasets.tiny_imagenet import TinyImageNet
from smmix_pl.data.datasets.voc_objects import VOCObjects
from smmix_pl.data.datasets.voc_segmentation import VOCSegmentation
from smmix_pl.data.dense import DenseData
from smmix_pl.data.file_data import FileData
from smmix_pl.data.transforms import EvalTransform, TrainTransform

__all__ = [
    "ADE20K",
    "CIFAR10",
    "CIFAR10C",
    "CIFAR100",
    "CIFAR100C",
    "COCO",
    "CUB",
    "Aircraft",
    "COCOObjects",
    "CamVid",
    "DenseData",
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
    "Imagenette",
    "LabelFile",
    "LitData",
    "OxfordPets",
    "SegmentationFolder",
    "Shards",
    "StanfordCars",
    "Table",
    "TinyImageNet",
    "TrainTransform",
    "VOCObjects",
    "VOCSegmentation",
]
