"""Metrics in words, for tables that people read."""

import re

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "ece": "ECE",
    "ece_scaled": "ECE after temperature scaling",
    "nll_scaled": "NLL after temperature scaling",
    "adaptive_ece": "adaptive ECE",
    "classwise_ece": "class-wise ECE",
    "ece_openmixup": "ECE as OpenMixup prints it",
    "mce": "MCE",
    "nll": "NLL",
    "brier": "Brier score",
    "worst_class_top1": "top-1 of the worst class",
    "ood_auroc": "outliers: AUROC",
    "ood_fpr95": "outliers: FPR at 95% TPR",
    "occlusion": "random",
    "occlusion_batch": "random, the same patches in all images of a batch",
    "corruption_mean": "top-1, mean over corruptions",
    "gaussian_noise": "Gaussian noise",
    "gaussian_blur": "Gaussian blur",
    "jpeg_compression": "JPEG compression",
}

PATTERNS = (
    (r"(.*ece.*|mce)_(\d+)", "{0} ({1} bins)"),
    (r"occlusion_([\d.]+)", "top-1, {0}% occlusion"),
    (r"occlusion_auc_([\d.]+)", "top-1, mean over 0 to {0}% occlusion"),
    (r"occlusion_(.+)_auc_([\d.]+)", "top-1, mean over 0 to {1}% occlusion, {0}"),
    (r"occlusion_(.+)_([\d.]+)", "top-1, {1}% occlusion, {0}"),
    (r"shuffle_(\d+)", "top-1, {0} x {0} tiles shuffled"),
    (r"fgsm_([\d.]+)", "top-1, FGSM {0}/255"),
    (r"pgd_([\d.]+)", "top-1, PGD {0}/255"),
    (r"corruption_(.+)_(\d)", "top-1, {0}, severity {1}"),
    (r"(?:occlusion|corruption)_(.+)", "{0}"),
)
"""Single numbers first, then curves."""

ABSOLUTE = ("loss", "nll", "nll_scaled", "brier", "temperature")
"""Metrics that are no shares."""


def metric_name(metric: str) -> str:
    """A metric's name without the stage, in words."""
    if metric in NAMES:
        return NAMES[metric]
    for pattern, words in PATTERNS:
        found = re.fullmatch(pattern, metric)
        if found:
            return words.format(
                *(NAMES.get(part, part.replace("_", " ")) for part in found.groups())
            )
    return metric.replace("_", " ")


def metric_value(metric: str, value: float) -> str:
    """A share in percent, everything else as it is."""
    return f"{value:.4f}" if metric in ABSOLUTE else f"{100 * value:.2f}%"
