"""Mixers: each turns a batch of images and soft labels into one `Mixed` batch."""

from smmix_pl.mixing.base import Guide, Mixed, Mixer, Motivator, Regions, soft_labels
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.mixup import Mixup
from smmix_pl.mixing.nomix import NoMix
from smmix_pl.mixing.smmix import SMMix

__all__ = [
    "CutMix",
    "Guide",
    "Mixed",
    "Mixer",
    "Mixup",
    "Motivator",
    "NoMix",
    "Regions",
    "SMMix",
    "soft_labels",
]
