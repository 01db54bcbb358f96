"""Mixers: each one turns a batch of images and soft labels into a `Mixed` batch.

To add one, write its file, import it here, and list it in `smmix_pl/__init__.py` for configs.
"""

from smmix_pl.mixing.attentive_cutmix import AttentiveCutMix
from smmix_pl.mixing.base import Guide, GuideModel, Mixed, Mixer, Readout, Regions, soft_labels
from smmix_pl.mixing.cutmix import CutMix
from smmix_pl.mixing.fmix import FMix
from smmix_pl.mixing.gridmix import GridMix
from smmix_pl.mixing.mergemix import MergeMix
from smmix_pl.mixing.mixpro import MixPro
from smmix_pl.mixing.mixup import Mixup
from smmix_pl.mixing.mixup_cutmix import MixupCutMix
from smmix_pl.mixing.nomix import NoMix
from smmix_pl.mixing.puzzlemix import PuzzleMix
from smmix_pl.mixing.resizemix import ResizeMix
from smmix_pl.mixing.saliencymix import SaliencyMix
from smmix_pl.mixing.smmix import SMMix
from smmix_pl.mixing.sumix import SUMix
from smmix_pl.mixing.tdattenmix import TdAttenMix
from smmix_pl.mixing.tl_align import TLAlign
from smmix_pl.mixing.tokenmix import TokenMix
from smmix_pl.mixing.transmix import TransMix

__all__ = [
    "AttentiveCutMix",
    "CutMix",
    "FMix",
    "GridMix",
    "Guide",
    "GuideModel",
    "MergeMix",
    "MixPro",
    "Mixed",
    "Mixer",
    "Mixup",
    "MixupCutMix",
    "NoMix",
    "PuzzleMix",
    "Readout",
    "Regions",
    "ResizeMix",
    "SMMix",
    "SUMix",
    "SaliencyMix",
    "TLAlign",
    "TdAttenMix",
    "TokenMix",
    "TransMix",
    "soft_labels",
]
