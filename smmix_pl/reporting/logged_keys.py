"""What a run logs, key by key: one table for the README, the dashboards and the reports.

``python -m smmix_pl.reporting.logged_keys`` prints it as Markdown.
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
    "time/guide": "seconds of the motivating pass",
    "time/mix": "seconds of mixing, without the motivating pass",
    "time/train": "seconds of forward, backward and optimizer",
    "memory/peak_gib": "peak GiB: tensors on the GPU, or the process where there is none",
    "attention/entropy": "of the attention over the tokens, 1 where it is even",
    "attention/copied": "share of the source's attention in its most attended window",
    "attention/covered": "share of the target's attention in its least attended window",
    "attention/pasted": "share of the mixed image's attention in the pasted window",
    "attention/area": "share of the tokens in these windows, to hold the three above against",
    "attention/windows_overlap": "how often the two windows of one image share a token",
    "val/top1": "validation accuracy, of the average of the weights if there is one (EMA)",
    "val/top5": "validation accuracy among the first five classes, likewise",
    "val/loss": "validation cross entropy, likewise",
    "val/ece": "validation expected calibration error, 15 bins, likewise; and as in the test",
    "val_weights/top1": "validation accuracy of the raw weights, beside an EMA",
    "val_weights/top5": "of the raw weights, among the first five classes",
    "val_weights/loss": "validation cross entropy of the raw weights",
    "val_weights/ece": "validation calibration error of the raw weights",
    "test/top1": "test accuracy",
    "test/top5": "test accuracy among the first five classes",
    "test/loss": "test cross entropy",
    "test/ece": "expected calibration error, 15 bins; and `adaptive_ece`, `classwise_ece`, `mce`",
    "test/nll": "negative log-likelihood of the class: the cross entropy again",
    "test/brier": "Brier score, 0 to 2",
    "test/occlusion_25": "accuracy with 25% of the patches dropped",
    "test/occlusion_50": "accuracy with 50% dropped",
    "test/occlusion_75": "accuracy with 75% dropped; other ratios likewise",
    "test/occlusion_auc_75": "mean accuracy over 0 to 75% occlusion; other ranges likewise",
    "test/worst_class_top1": "accuracy of the class with the lowest",
}
"""Numbers by key, of every recipe."""

SUITE = {
    "test/ece_10": "and other metrics of calibration with their number of bins",
    "test/ece_scaled": "calibration error after temperature scaling; and `nll_scaled`",
    "test/temperature": "the temperature that was fitted",
    "test/ece_openmixup_10": "calibration error as the OpenMixup toolbox computes it",
    "test/occlusion_salient_50": "accuracy with 50% dropped, the most attended first; and so on",
    "test/shuffle_4": "accuracy with 4 x 4 tiles shuffled; other grids likewise",
    "test/fgsm_8": "accuracy under FGSM of 8/255; other strengths likewise",
    "test/pgd_8": "accuracy under PGD of 8/255; other strengths likewise",
    "test/corruption_gaussian_noise_3": "accuracy under a corruption, by severity",
    "test/corruption_mean": "mean accuracy over corruptions and severities",
    "test/ood_auroc": "AUROC of outliers by the largest softmax probability; and `ood_fpr95`",
}
"""Numbers that the evaluation suite adds (``--config with/eval.yaml``)."""

PICTURES = {
    "train/mixing": "what SMMix makes of images by this model's attention, whatever the mixer",
    "test/reliability": "reliability diagram",
    "test/occlusion": "accuracy under occlusion",
    "test/confusion": "confusion matrix, or the most confused pairs of many classes",
    "test/worst_calibrated": "classes whose confidence is farthest from their accuracy",
    "test/errors": "the errors of highest confidence",
}
"""Pictures by key; in the run's folder as ``pictures/train_mixing.png`` and so on."""

SUITE_PICTURES = {
    "test/reliability_10": "reliability diagram of 10 bins",
    "test/reliability_scaled": "reliability diagram after temperature scaling",
    "test/occlusion_batch": "accuracy under occlusion, the same patches in all images of a batch",
    "test/shuffle": "accuracy with shuffled tiles",
    "test/fgsm": "accuracy under FGSM",
    "test/pgd": "accuracy under PGD",
    "test/corruptions": "accuracy under common corruptions, by severity",
    "test/outliers": "confidence in test images and in outliers",
}
"""Pictures that the evaluation suite adds."""

TABLES = {
    "test/results": "every test metric",
    "test/confident_errors": "the errors of highest confidence, with their images",
}
"""W&B tables by key."""


def markdown() -> str:
    """The table."""
    lines = ["| key | what it is |", "| --- | --- |"]
    kinds = (
        (METRICS, ""),
        (PICTURES, "picture: "),
        (TABLES, "W&B table: "),
        (SUITE, "evaluation suite: "),
        (SUITE_PICTURES, "evaluation suite, picture: "),
    )
    for keys, kind in kinds:
        lines += [f"| `{key}` | {kind}{what} |" for key, what in keys.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
