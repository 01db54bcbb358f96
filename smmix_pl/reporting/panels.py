"""Panels of the dashboard and of the HTML report, the figures in them, and the reference page."""

from typing import NamedTuple

from smmix_pl.reporting.metric_rows import Source
from smmix_pl.reporting.metric_specs import METRICS


class Panel(NamedTuple):
    """A part of the dashboard and of the report: the question it answers, and how to read it."""

    question: str
    reading: str


class PictureSpec(NamedTuple):
    """A logged figure; in the run folder as `pictures/test_reliability.png`, for example."""

    key: str
    caption: str
    panel: str
    source: Source = ""


PANELS = {
    "Training": Panel(
        "Does it learn?",
        "Training losses of different mixers are different sums: compare validation metrics.",
    ),
    "Mixing": Panel(
        "What does the mixer do, and where does the model look?",
        "Pictures show what the run's own mixer makes of validation images, with the windows that "
        "attention selected.",
    ),
    "Attention": Panel(
        "How concentrated is the guide attention?",
        "Compare the attention inside the windows with their area: equal means no preference.",
    ),
    "Validation": Panel(
        "How good is it, and does averaging the weights help?",
        "With EMA, val is the average of the weights and val_weights are the trained weights.",
    ),
    "Multi-label": Panel(
        "How well does it find all labels?",
        "Runs of `MultiLabel` only. mAP ranks the images of each label; F1 also needs thresholds.",
    ),
    "Segmentation": Panel(
        "How well does it segment?",
        "Runs of `SemanticSegmentation` only. Pictures show the truth and the prediction.",
    ),
    "Detection": Panel(
        "How well does it detect?",
        "Runs of `ObjectDetection` only. Pictures show the true and the detected objects.",
    ),
    "Calibration": Panel(
        "Is it calibrated?",
        "ECE is the gap between confidence and accuracy; 0 is best. The diagram shows whether the "
        "model is over- or underconfident. The Brier score also falls as accuracy rises.",
    ),
    "Robustness": Panel(
        "How does it handle occlusion?",
        "Accuracy with 25, 50, and 75% of the patches dropped, and the mean over 0 to 75%.",
    ),
    "Errors": Panel(
        "What does it confuse?",
        "Compare the worst class with the mean, then see which classes are confused and which "
        "errors are most confident.",
    ),
    "System": Panel(
        "What does it cost?",
        "If time/data is a large part of a step, data loading is the bottleneck, not the mixer.",
    ),
}

PICTURES = (
    PictureSpec(
        "val/mixing",
        "Random validation images of different classes, the model's attention, and what the run's "
        "mixer makes of each pair, with the resulting labels",
        "Mixing",
    ),
    PictureSpec(
        "val/segmentation", "Validation images with their masks and predictions", "Segmentation",
        "segmentation",
    ),
    PictureSpec(
        "test/segmentation", "Test images with their masks and predictions", "Segmentation",
        "segmentation",
    ),
    PictureSpec(
        "val/detection", "Validation images with their objects and detections", "Detection",
        "detection",
    ),
    PictureSpec(
        "test/detection", "Test images with their objects and detections", "Detection",
        "detection",
    ),
    PictureSpec(
        "test/reliability",
        "Reliability diagram of the test images in 15 bins: accuracy by confidence, and the "
        "fraction of images in each bin below",
        "Calibration",
    ),
    PictureSpec(
        "test/occlusion",
        "Top-1 accuracy on test images with patches dropped at random",
        "Robustness",
    ),
    PictureSpec(
        "test/confusion",
        "Confusion matrix of the test images in percent of each true class; with more than 20 "
        "classes, the most confused pairs instead",
        "Errors",
    ),
    PictureSpec(
        "test/errors",
        "Misclassified test images with the highest confidence in the wrong class",
        "Errors",
    ),
    PictureSpec(
        "test/reliability_10", "Reliability diagram of the test images in 10 bins", "Calibration",
        "evaluation suite",
    ),
    PictureSpec(
        "test/risk",
        "Error of the most confident test images by their percentage (risk-coverage curve), and "
        "that of a perfect order",
        "Calibration", "evaluation suite",
    ),
    PictureSpec(
        "test/conformal",
        "Conformal prediction sets of test images: how many hold the true class, and how many "
        "classes they hold, by the target",
        "Calibration", "evaluation suite",
    ),
    PictureSpec(
        "test/reliability_scaled",
        "Reliability diagram of the test images after temperature scaling",
        "Calibration", "evaluation suite",
    ),
    PictureSpec(
        "test/occlusion_batch",
        "Top-1 accuracy on test images with the same patches dropped in all images of a batch",
        "Robustness", "evaluation suite",
    ),
    PictureSpec(
        "test/shuffle", "Top-1 accuracy on test images cut into shuffled tiles",
        "Robustness", "evaluation suite"
    ),
    PictureSpec(
        "test/fgsm", "Top-1 accuracy on test images attacked by FGSM",
        "Robustness", "evaluation suite"
    ),
    PictureSpec(
        "test/pgd", "Top-1 accuracy on test images attacked by PGD",
        "Robustness", "evaluation suite",
    ),
    PictureSpec(
        "test/autoattack", "Top-1 accuracy on test images attacked by AutoAttack",
        "Robustness", "with/autoattack.yaml",
    ),
    PictureSpec(
        "test/corruptions", "Top-1 accuracy under common corruptions by severity, 5 is strongest",
        "Robustness", "evaluation suite",
    ),
    PictureSpec(
        "test/localization",
        "Test images with their objects, and attention or similarity over them with the box that "
        "it predicts",
        "Robustness", "with/localization.yaml",
    ),
    PictureSpec(
        "test/outliers",
        "Confidence of the model in test images and in outliers, which belong to no class",
        "Robustness", "evaluation suite",
    ),
)  # fmt: skip

OF_TASKS = ("", "segmentation", "detection")
"""Sources that are runs, not overlays."""
TABLES = {
    "test/results": "All test metrics",
    "test/confident_errors": "The most confident errors with their images",
}
"""W&B tables by key."""


def panel_keys(panel: str) -> list[str]:
    """Return the keys of the metrics that a panel shows, without those of overlays."""
    return [key for spec in METRICS if spec.panel == panel for key in spec.panel_keys]


def picture_keys(panel: str) -> list[str]:
    """Return the keys of the figures that a panel shows, without those of overlays."""
    return [
        picture.key for picture in PICTURES if picture.panel == panel and picture.source in OF_TASKS
    ]


def markdown() -> str:
    """Return the reference of all logged keys as Markdown."""
    lines = ["| key | unit | better | meaning |", "| --- | --- | --- | --- |"]
    for spec in METRICS:
        keys = ", ".join(f"`{key}`" for key in spec.keys)
        source = f" ({spec.source})" if spec.source else ""
        lines.append(f"| {keys} | {spec.unit} | {spec.better} | {spec.meaning}{source} |")
    for picture in PICTURES:
        source = f" ({picture.source})" if picture.source else ""
        lines.append(f"| `{picture.key}` | figure | | {picture.caption}{source} |")
    lines += [f"| `{key}` | W&B table | | {meaning} |" for key, meaning in TABLES.items()]
    return "\n".join(lines) + "\n"
