"""timm models as SMMix backbones."""

from smmix_pl.models.backbone import Backbone, Features

__all__ = ["Backbone", "Features"]
