"""Panels of the dashboard and of the HTML report, the figures in them, and the reference page."""

from typing import NamedTuple

from smmix_pl.reporting.metric_specs import METRICS


class Panel(NamedTuple):
    """A part of the dashboard and of the report: the question it answers, and how to read it."""

    question: str
    reading: str


class PictureSpec(NamedTuple):
    """A logged figure; in the run folder as `pictures/test_reliability.png` and so on."""

    key: str
    caption: str
    panel: str
    suite: bool = False


PANELS = {
    "Training": Panel(
        "Does it learn?",
        "Training losses of different mixers are different sums: compare validation metrics.",
    ),
    "Mixing": Panel(
        "What does the mixer do, and where does the model look?",
        "Pictures show the attention and the windows that SMMix selects by it, also for runs with "
        "other mixers.",
    ),
    "Attention": Panel(
        "How concentrated is the guide attention?",
        "Compare the attention inside the windows with their area: equal means no preference.",
    ),
    "Validation": Panel(
        "How good is it, and does averaging the weights help?",
        "With EMA, val is the average of the weights and val_weights are the trained weights.",
    ),
    "Calibration": Panel(
        "Is it calibrated?",
        "ECE is the gap between confidence and accuracy; 0 is best. The diagram shows whether the "
        "model is over- or underconfident. NLL and Brier score also fall as accuracy rises.",
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
    PictureSpec("train/mixing", "What SMMix makes of images with this model's attention", "Mixing"),
    PictureSpec("test/reliability", "Reliability diagram", "Calibration"),
    PictureSpec(
        "test/worst_calibrated", "Classes with the largest calibration gap", "Calibration"
    ),
    PictureSpec("test/occlusion", "Accuracy under occlusion", "Robustness"),
    PictureSpec("test/confusion", "Confusion matrix, or the most confused pairs", "Errors"),
    PictureSpec("test/errors", "Most confident errors", "Errors"),
    PictureSpec("test/reliability_10", "Reliability diagram with 10 bins", "Calibration", True),
    PictureSpec(
        "test/reliability_scaled", "Reliability diagram after temperature scaling", "Calibration",
        True,
    ),
    PictureSpec(
        "test/occlusion_batch",
        "Accuracy under occlusion, with the same patches in all images of a batch",
        "Robustness",
        True,
    ),
    PictureSpec("test/shuffle", "Accuracy with shuffled tiles", "Robustness", True),
    PictureSpec("test/fgsm", "Accuracy under FGSM", "Robustness", True),
    PictureSpec("test/pgd", "Accuracy under PGD", "Robustness", True),
    PictureSpec(
        "test/corruptions", "Accuracy under common corruptions, by severity", "Robustness", True
    ),
    PictureSpec("test/outliers", "Confidence for test images and outliers", "Robustness", True),
)  # fmt: skip

TABLES = {
    "test/results": "All test metrics",
    "test/confident_errors": "The most confident errors with their images",
}
"""W&B tables by key."""


def panel_keys(panel: str) -> list[str]:
    """Return the keys of the metrics that a panel shows, without the evaluation suite."""
    return [key for spec in METRICS if spec.panel == panel for key in spec.panel_keys]


def picture_keys(panel: str) -> list[str]:
    """Return the keys of the figures that a panel shows, without the evaluation suite."""
    return [picture.key for picture in PICTURES if picture.panel == panel and not picture.suite]


def markdown() -> str:
    """Return the reference of all logged keys as Markdown."""
    lines = ["| key | unit | better | meaning |", "| --- | --- | --- | --- |"]
    for spec in METRICS:
        keys = ", ".join(f"`{key}`" for key in spec.keys)
        suite = " (evaluation suite)" if spec.suite else ""
        lines.append(f"| {keys} | {spec.unit} | {spec.better} | {spec.meaning}{suite} |")
    for picture in PICTURES:
        suite = " (evaluation suite)" if picture.suite else ""
        lines.append(f"| `{picture.key}` | figure | | {picture.caption}{suite} |")
    lines += [f"| `{key}` | W&B table | | {meaning} |" for key, meaning in TABLES.items()]
    return "\n".join(lines) + "\n"
