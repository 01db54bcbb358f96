"""Downstream tasks of a trained backbone, one LightningModule each."""

from smmix_pl.downstream.frozen_backbone import FrozenBackbone
from smmix_pl.downstream.linear_probe import LinearProbe

__all__ = ["FrozenBackbone", "LinearProbe"]
