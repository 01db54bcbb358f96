"""Published results with their sources, for comparison. None of them was measured here.

The rows of MergeMix's tables were trained with OpenMixup, whose SMMix is reduced: it pastes and
mixes labels by area, without the fine-grained and consistency losses. Its ECE is
`ece_openmixup_10` here, and its occlusion `occlusion_batch`: random patches of 16 pixels, set to 0
after normalization, the same for all images of a batch.
"""

from dataclasses import dataclass, field
from typing import Any

from smmix_pl.runs.results import Curve

MERGEMIX = "MergeMix, arXiv 2510.23479 (OpenMixup)"
RELEASE = "README of github.com/ChenMnZ/SMMix, commit 14b1edc"
AWESOME = "github.com/Westlake-AI/Awesome-Mixup"

TENTHS = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]


@dataclass(frozen=True)
class Published:
    """One published row, for images of 224 x 224 pixels.

    Attributes:
        method: Training method.
        model: timm's name of the backbone, or a description if timm has none.
        data: Class name of the dataset.
        source: Publication.
        metrics: Values in percent, by metric key.
        occlusion: Top-1 accuracy in percent at 0, 10, ..., 90% occlusion.
        note: Schedule, if it is not the usual one.
    """

    method: str
    model: str
    data: str
    source: str
    metrics: dict[str, float] = field(default_factory=dict)
    occlusion: tuple[float, ...] = ()
    note: str = ""

    @property
    def label(self) -> str:
        """Short name for a column or a line."""
        return f"{self.method}, {self.note}" if self.note else self.method

    def curve(self) -> Curve:
        """Return the occlusion curve with accuracies in [0, 1]."""
        return Curve(TENTHS[: len(self.occlusion)], [top1 / 100 for top1 in self.occlusion])

    def values(self) -> dict[str, float]:
        """Return all values by metric key, in [0, 1]."""
        points = zip(TENTHS[1:], self.occlusion[1:], strict=False)
        at = {f"occlusion_batch_{ratio:g}": top1 for ratio, top1 in points}
        return {name: value / 100 for name, value in (self.metrics | at).items()}


def matching(run: dict[str, Any]) -> list[Published]:
    """Return the published rows with a run's data, backbone, and image size.

    Arguments that change the shape of a backbone make it another model; drop rates do not.

    Args:
        run: The `run` section of results.json.
    """
    if any(not name.endswith("_rate") for name in run.get("backbone_args", {})):
        return []
    return [
        row
        for row in PUBLISHED
        if (row.data, row.model) == (run["data"], run["model"]) and run["image_size"] == [224, 224]
    ]


def _imagenet(source: str, method: str, **top1: float) -> list[Published]:
    """Return the top-1 rows of one method on ImageNet-1k, 300 epochs."""
    return [
        Published(method, MODELS[key], "ImageNet", source, {"top1": x}) for key, x in top1.items()
    ]


def _cifar100(method: str, after_200: float, after_600: float) -> list[Published]:
    """Return the top-1 rows of DeiT-S with one method on CIFAR-100 at 224."""
    return [
        Published(method, DEIT_S, "CIFAR100", MERGEMIX, {"top1": top1}, note=f"{epochs} epochs")
        for epochs, top1 in ((200, after_200), (600, after_600))
    ]


MODELS = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "cait_xxs24": "cait_xxs24_224",
    "pvt_t": "pvt_tiny",
    "pvt_s": "pvt_small",
    "pvt_m": "pvt_medium",
    "pvt_l": "pvt_large",
    "swin_t": "swin_tiny_patch4_window7_224",
}
DEIT_T, DEIT_S, VIT_B, VIT_L = (
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_large_patch16_224",
)
VIT_S = "ViT-S of mmcls (width 768, depth 8)"
REDUCED = "SMMix (reduced)"

PUBLISHED = [
    *_imagenet(
        RELEASE, "none (as published)",
        deit_t=72.2, deit_s=79.9, deit_b=81.8, pvt_t=75.1, pvt_s=79.8, pvt_m=81.2, pvt_l=81.7,
        cait_xxs24=77.6,
    ),
    *_imagenet(
        RELEASE, "SMMix", deit_t=73.6, deit_s=81.1, pvt_t=76.4, pvt_s=81.0, pvt_m=82.2, pvt_l=82.7
    ),
    *_imagenet(AWESOME, "SMMix", deit_b=82.9),
    *_imagenet(
        AWESOME, "CutMix",
        deit_t=74.23, deit_s=80.13, deit_b=81.61, swin_t=81.23, pvt_t=75.53, pvt_s=79.64,
    ),
    *_imagenet(
        AWESOME, "Attentive-CutMix",
        deit_t=74.07, deit_s=80.32, deit_b=82.42, swin_t=81.29, pvt_t=74.98, pvt_s=79.84,
    ),
    *_imagenet(
        AWESOME, "SaliencyMix",
        deit_t=74.17, deit_s=79.88, deit_b=80.72, swin_t=81.37, pvt_t=75.71, pvt_s=79.69,
    ),
    *_imagenet(
        AWESOME, "PuzzleMix",
        deit_t=73.85, deit_s=80.45, deit_b=81.63, swin_t=81.47, pvt_t=75.48, pvt_s=79.70,
    ),
    *_imagenet(
        AWESOME, "TokenMix", deit_t=75.31, deit_s=80.80, deit_b=82.90, swin_t=81.60, pvt_t=75.60
    ),
    *_imagenet(
        AWESOME, "TransMix",
        deit_t=74.56, deit_s=80.68, deit_b=82.51, swin_t=81.80, pvt_t=75.50, pvt_s=80.50,
    ),
    *_imagenet(
        AWESOME, "MixPro",
        deit_t=73.80, deit_s=81.30, deit_b=82.90, swin_t=82.80, pvt_t=76.70, pvt_s=81.20,
    ),
    Published(
        REDUCED, DEIT_S, "ImageNet", MERGEMIX, {"top1": 79.36, "ece_openmixup_10": 6.53},
        (79.32, 78.56, 77.70, 76.17, 73.76, 70.25, 64.95, 58.94, 48.69, 34.37),
    ),
    Published(
        "CutMix", DEIT_S, "ImageNet", MERGEMIX, {"ece_openmixup_10": 4.19},
        (80.16, 79.23, 78.20, 76.87, 75.21, 72.92, 69.24, 64.63, 55.95, 39.69),
    ),
    Published(
        "TransMix", DEIT_S, "ImageNet", MERGEMIX, {"ece_openmixup_10": 7.57},
        (80.36, 79.47, 78.24, 77.00, 75.40, 73.31, 70.17, 65.78, 57.79, 42.44),
    ),
    Published("Mixup", DEIT_S, "ImageNet", MERGEMIX, {"ece_openmixup_10": 5.66}),
    Published("Mixup+CutMix", DEIT_S, "ImageNet", MERGEMIX, {"ece_openmixup_10": 8.24}),
    Published("MixPro", DEIT_S, "ImageNet", MERGEMIX, {"ece_openmixup_10": 5.17}),
    Published("MergeMix", DEIT_S, "ImageNet", MERGEMIX, {"ece_openmixup_10": 6.00}),
    *_cifar100("none", 65.81, 68.50),
    *_cifar100("Mixup", 69.98, 76.35),
    *_cifar100("CutMix", 74.21, 79.54),
    *_cifar100("Mixup+CutMix", 75.92, 79.54),
    *_cifar100("PuzzleMix", 73.60, 81.01),
    *_cifar100("TransMix", 76.17, 79.33),
    *_cifar100("MixPro", 75.26, 79.55),
    *_cifar100(REDUCED, 74.09, 79.84),
    *_cifar100("MergeMix", 78.68, 80.39),
    Published(
        REDUCED, DEIT_T, "CIFAR100", MERGEMIX,
        occlusion=(78.62, 77.78, 76.51, 74.78, 71.25, 64.17, 47.28, 24.72, 7.12, 2.19),
    ),
    Published(
        "CutMix", DEIT_T, "CIFAR100", MERGEMIX,
        occlusion=(79.58, 78.64, 77.10, 75.83, 72.96, 70.25, 64.40, 54.39, 35.82, 14.08),
    ),
    Published(
        REDUCED, VIT_S, "CIFAR100", MERGEMIX,
        occlusion=(79.32, 77.84, 76.60, 75.41, 73.00, 68.10, 58.89, 45.07, 23.25, 4.59),
    ),
    Published(
        "CutMix", VIT_S, "CIFAR100", MERGEMIX,
        occlusion=(76.13, 73.77, 72.93, 71.92, 70.32, 68.32, 65.48, 59.30, 43.11, 17.04),
    ),
    Published(REDUCED, VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 7.70}),
    Published("Mixup", VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 4.76}),
    Published("CutMix", VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 7.36}),
    Published("Mixup+CutMix", VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 6.71}),
    Published("TransMix", VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 16.44}),
    Published("MixPro", VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 6.22}),
    Published("MergeMix", VIT_L, "CIFAR100", MERGEMIX, {"ece_openmixup_10": 4.65}),
    Published(REDUCED, DEIT_S, "StanfordCars", MERGEMIX, {"top1": 88.76}),
    Published(REDUCED, VIT_B, "StanfordCars", MERGEMIX, {"top1": 91.93}),
    Published(REDUCED, DEIT_S, "Aircraft", MERGEMIX, {"top1": 76.42}),
    Published(REDUCED, VIT_B, "Aircraft", MERGEMIX, {"top1": 78.40}),
    Published(REDUCED, DEIT_S, "CUB", MERGEMIX, {"top1": 82.88}),
    Published(REDUCED, VIT_B, "CUB", MERGEMIX, {"top1": 88.35}),
]  # fmt: skip
