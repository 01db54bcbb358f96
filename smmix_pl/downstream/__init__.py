"""Downstream tasks of a trained backbone, one LightningModule each."""

from smmix_pl.downstream.detection import ObjectDetection
from smmix_pl.downstream.frozen_backbone import FrozenBackbone
from smmix_pl.downstream.linear_probe import LinearProbe
from smmix_pl.downstream.multi_label import MultiLabel
from smmix_pl.downstream.pyramid import FeaturePyramid
from smmix_pl.downstream.segmentation import SemanticSegmentation
from smmix_pl.downstream.transfer import TransferModule

__all__ = [
    "FeaturePyramid",
    "FrozenBackbone",
    "LinearProbe",
    "MultiLabel",
    "ObjectDetection",
    "SemanticSegmentation",
    "TransferModule",
]
