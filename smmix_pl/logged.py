"""What a run logs, key by key: one table for the README, the dashboards and the reports.

``python -m smmix_pl.logged`` prints it as Markdown.
"""

METRICS = {
    "train/loss": "total loss, weighted",
    "train/loss_classification": "cross entropy of the mixed images with their mixed labels",
    "train/loss_fine_grained_target": "token head on the target region (SMMix branch)",
    "train/loss_fine_grained_source": "token head on the pasted region (SMMix branch)",
    "train/loss_consistency": "KL divergence from the mixed logits of the images (SMMix branch)",
    "train/branch": "1: a region is pasted, 0: images are blended (mixers with two branches)",
    "train/lam": "share of the target image, 0 to 1",
    "train/region_side": "side of the pasted region in tokens (SMMix branch)",
    "train/grad_norm": "L2 norm of the gradient, before clipping",
    "train/weight_norm": "L2 norm of the weights",
    "lr": "learning rate",
    "images_per_second": "over all devices",
    "time/data": "seconds of a step in which the host waits for a batch",
    "time/motivate": "seconds of the motivating pass",
    "time/mix": "seconds of mixing, without the motivating pass",
    "time/train": "seconds of forward, backward and optimiser",
    "memory/peak_gib": "peak GiB: tensors on the GPU, or the process where there is none",
    "val/top1": "validation accuracy, of the average of the weights if there is one (EMA)",
    "val/top5": "likewise",
    "val/loss": "cross entropy, likewise",
    "val/ece": "expected calibration error, 15 bins, likewise",
    "val_weights/top1": "validation accuracy of the raw weights, beside an EMA",
    "val_weights/top5": "likewise",
    "val_weights/loss": "likewise",
    "val_weights/ece": "likewise",
    "test/top1": "test accuracy",
    "test/top5": "likewise",
    "test/loss": "cross entropy",
    "test/ece": "expected calibration error, 15 bins; and `adaptive_ece`, `classwise_ece`, `mce`",
    "test/nll": "negative log-likelihood of the class",
    "test/brier": "Brier score, 0 to 2",
    "test/occlusion_25": "accuracy with 25% of the patches dropped",
    "test/occlusion_50": "accuracy with 50% dropped",
    "test/occlusion_75": "accuracy with 75% dropped; other ratios likewise",
    "test/occlusion_auc_75": "mean accuracy over 0 to 75% occlusion; other ranges likewise",
    "test/worst_class_top1": "accuracy of the class with the lowest",
}
"""Numbers by key."""

PICTURES = {
    "train/mixing": "what SMMix does to images, with attention and windows",
    "test/reliability": "reliability diagram",
    "test/occlusion": "accuracy under occlusion",
    "test/confusion": "confusion matrix, or the most confused pairs of many classes",
    "test/worst_calibrated": "classes whose confidence is farthest from their accuracy",
    "test/errors": "the errors of highest confidence",
}
"""Pictures by key; in the run's folder as ``pictures/train_mixing.png`` and so on."""

TABLES = {
    "test/results": "every test metric",
    "test/confident_errors": "the errors of highest confidence, with their images",
}
"""W&B tables by key."""


def markdown() -> str:
    """The table."""
    lines = ["| key | what it is |", "| --- | --- |"]
    kinds = ((METRICS, ""), (PICTURES, "picture: "), (TABLES, "W&B table: "))
    for keys, kind in kinds:
        lines += [f"| `{key}` | {kind}{what} |" for key, what in keys.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
