"""Backbones: timm models with a token head and a guide pass."""

import smmix_pl.models.pvt  # noqa: F401 - registers PVT v1 with timm
from smmix_pl.models.backbone import Backbone, Features

__all__ = ["Backbone", "Features"]
