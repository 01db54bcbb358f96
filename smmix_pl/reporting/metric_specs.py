"""The table of all metrics: keys, display names, units, direction, meaning, and panel.

Summary table, comparison, dashboard, HTML report, and docs/metrics.md are generated from
it. A key may hold placeholders: `occlusion_{ratio}` stands for `occlusion_25` and others.
"""

import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["fraction", "nats", "seconds", "GiB", "images/s", "tokens", ""]
Stage = Literal["val", "val_weights", "test"]
Source = Literal[
    "",
    "evaluation suite",
    "with/localization.yaml",
    "with/knn.yaml",
    "linear probe",
    "segmentation",
    "multi-label",
]

EVAL: tuple[Stage, ...] = ("val", "val_weights", "test")
TEST: tuple[Stage, ...] = ("test",)
VAL_AND_TEST: tuple[Stage, ...] = ("val", "test")


@dataclass(frozen=True)
class MetricSpec:
    """One logged number, or one family of them.

    Attributes:
        key: Logged key, without the stage if there are stages.
        name: Display name; placeholders of the key may occur in it.
        unit: A fraction is logged in [0, 1] and displayed in percent.
        better: Direction of improvement, or empty if there is none.
        meaning: What it is, in one line.
        panel: Panel of the dashboard and section of the report that shows it, or empty.
        stages: Prefixes under which it is logged: `val` and `test`, and `val_weights` for the
            trained weights beside their average.
        source: What logs it, or empty if every classification run does. The evaluation suite is
            `with/eval.yaml`, or a corrupted dataset.
    """

    key: str
    name: str
    unit: Unit
    better: Literal["higher", "lower", ""]
    meaning: str
    panel: str
    stages: tuple[Stage, ...]
    source: Source

    @property
    def keys(self) -> list[str]:
        """Keys as logged, with their stages and still with placeholders."""
        return [f"{stage}/{self.key}" for stage in self.stages] or [self.key]

    @property
    def panel_keys(self) -> list[str]:
        """Keys that the dashboard shows."""
        if "{" not in self.key:
            return self.keys
        values = SHOWN.get(self.key, ())
        return [re.sub(r"\{\w+\}", value, key) for key in self.keys for value in values]


Row = tuple[str, str, Unit, Literal["higher", "lower", ""], str]


def _specs(panel: str, stages: tuple[Stage, ...], source: Source, *rows: Row) -> list[MetricSpec]:
    return [MetricSpec(*row, panel, stages, source) for row in rows]


METRICS = (
    *_specs(
        "Training", (), "",
        ("train/loss", "training loss", "nats", "lower", "Weighted sum of all losses"),
        (
            "train/loss_classification", "classification loss", "nats", "lower",
            "Cross entropy of the mixed images with their mixed labels",
        ),
        (
            "train/loss_fine_grained_target", "fine-grained loss, target", "nats", "lower",
            "Token head on the target region (SMMix branch)",
        ),
        (
            "train/loss_fine_grained_source", "fine-grained loss, source", "nats", "lower",
            "Token head on the pasted region (SMMix branch)",
        ),
        (
            "train/loss_consistency", "consistency loss", "nats", "lower",
            "KL divergence from the guide's mixed logits (SMMix branch)",
        ),
        (
            "train/loss_uncertainty", "uncertainty loss", "nats", "lower",
            "SUMix's loss on distances and uncertainty of mixed and unmixed images, weighted",
        ),
        (
            "train/loss_distillation", "distillation loss", "nats", "lower",
            "Cross entropy or KL divergence with the teacher's prediction for the mixed images",
        ),
        ("lr", "learning rate", "", "", "Learning rate of the step"),
        ("train/grad_norm", "gradient norm", "", "", "L2 norm of all gradients, before clipping"),
        ("train/weight_norm", "weight norm", "", "", "L2 norm of all weights"),
        ("train/ema_decay", "EMA decay", "", "", "Effective decay of the weight average (EMA)"),
        (
            "train/skipped_steps", "skipped steps", "", "",
            "Steps skipped so far (finite.action skip)",
        ),
    ),
    *_specs(
        "Mixing", (), "",
        (
            "train/branch", "branch", "", "",
            "1 if a region was pasted, 0 if images were blended (mixers with two branches)",
        ),
        ("train/lam", "mixing ratio", "fraction", "", "Fraction of the target image"),
        (
            "train/region_side", "region side", "tokens", "",
            "Side of the pasted region (SMMix branch)",
        ),
    ),
    *_specs(
        "Attention", (), "",
        (
            "attention/entropy", "attention entropy", "fraction", "",
            "Entropy of the guide attention over tokens; 1 if uniform",
        ),
        (
            "attention/copied", "attention copied", "fraction", "higher",
            "Attention of the source image inside its most-attended window",
        ),
        (
            "attention/covered", "attention covered", "fraction", "lower",
            "Attention of the target image inside its least-attended window",
        ),
        (
            "attention/pasted", "attention pasted", "fraction", "",
            "Attention of the mixed image inside the pasted window",
        ),
        (
            "attention/area", "window area", "fraction", "",
            "Area of the windows, the baseline for the three metrics above",
        ),
        (
            "attention/windows_overlap", "overlapping windows", "fraction", "lower",
            "Images whose most- and least-attended windows share a token",
        ),
    ),
    *_specs(
        "System", (), "",
        (
            "images_per_second", "images per second", "images/s", "higher",
            "Throughput over all devices",
        ),
        (
            "time/data", "time for data", "seconds", "lower",
            "Time per step that the host waits for a batch",
        ),
        ("time/guide", "time for the guide pass", "seconds", "lower", "Time of the guide pass"),
        (
            "time/mix", "time for mixing", "seconds", "lower",
            "Time of mixing, without the guide pass",
        ),
        (
            "time/train", "time for training", "seconds", "lower",
            "Time of forward, backward, and optimizer",
        ),
        (
            "memory/peak_gib", "peak memory", "GiB", "lower",
            "Peak allocated GPU memory, or resident memory of the process on a CPU",
        ),
    ),
    *_specs(
        "Validation", EVAL, "",
        ("top1", "top-1", "fraction", "higher", "Accuracy"),
        ("top5", "top-5", "fraction", "higher", "Accuracy within the five most probable classes"),
        ("loss", "loss", "nats", "lower", "Cross entropy"),
    ),
    *_specs(
        "Calibration", EVAL, "",
        ("ece", "ECE", "fraction", "lower", "Expected calibration error, 15 bins"),
    ),
    *_specs(
        "Multi-label", VAL_AND_TEST, "multi-label",
        ("map", "mAP", "fraction", "higher", "Mean over labels of the average precision"),
        (
            "f1_micro", "F1, micro", "fraction", "higher",
            "F1 score over all labels at the thresholds of the model",
        ),
        ("f1_macro", "F1, macro", "fraction", "higher", "Mean over labels of the F1 score"),
        (
            "label_ece", "label ECE", "fraction", "lower",
            "Mean over labels of the calibration error of their probability, 15 bins",
        ),
    ),
    *_specs(
        "Segmentation", (), "segmentation",
        (
            "train/loss_segmentation", "segmentation loss", "nats", "lower",
            "Cross entropy of the pixels",
        ),
        (
            "train/loss_auxiliary", "auxiliary loss", "nats", "lower",
            "Cross entropy of the auxiliary head, weighted",
        ),
    ),
    *_specs(
        "Segmentation", VAL_AND_TEST, "segmentation",
        (
            "miou", "mIoU", "fraction", "higher",
            "Mean intersection over union of the classes that occur",
        ),
        (
            "mean_accuracy", "mean class accuracy", "fraction", "higher",
            "Mean pixel accuracy of the classes that occur",
        ),
        (
            "pixel_accuracy", "pixel accuracy", "fraction", "higher",
            "Fraction of labeled pixels that are right",
        ),
    ),
    *_specs(
        "Segmentation", TEST, "segmentation",
        ("iou_{kind}", "IoU, {kind}", "fraction", "higher", "Intersection over union of a class"),
    ),
    *_specs(
        "", TEST, "evaluation suite",
        (
            "ece_scaled", "ECE after temperature scaling", "fraction", "lower",
            "Expected calibration error after temperature scaling, 15 bins",
        ),
        (
            "nll_scaled", "NLL after temperature scaling", "nats", "lower",
            "NLL after temperature scaling",
        ),
        ("temperature", "temperature", "", "", "Temperature that minimizes the NLL"),
        (
            "corruption_mean", "top-1, mean over corruptions", "fraction", "higher",
            "Mean accuracy over corruptions and severities",
        ),
        ("mCE", "mCE", "fraction", "lower", "Mean corruption error (ImageNet-C, CIFAR-C)"),
        (
            "ood_auroc", "outliers: AUROC", "fraction", "higher",
            "AUROC of outliers by the largest softmax probability",
        ),
        (
            "ood_fpr95", "outliers: FPR at 95% TPR", "fraction", "lower",
            "False positive rate at 95% true positive rate",
        ),
        (
            "AUPR", "outliers: AUPR", "fraction", "higher",
            "Area under the precision-recall curve (ImageNet-O)",
        ),
        (
            "ece_openmixup_{bins}", "ECE as OpenMixup prints it ({bins} bins)", "fraction", "lower",
            "Calibration error as OpenMixup computes it",
        ),
        (
            "ece_scaled_{bins}", "ECE after temperature scaling ({bins} bins)", "fraction", "lower",
            "ECE after temperature scaling, with another number of bins",
        ),
        ("ece_{bins}", "ECE ({bins} bins)", "fraction", "lower", "ECE with another number of bins"),
        (
            "adaptive_ece_{bins}", "adaptive ECE ({bins} bins)", "fraction", "lower",
            "Adaptive ECE with another number of bins",
        ),
        (
            "classwise_ece_{bins}", "class-wise ECE ({bins} bins)", "fraction", "lower",
            "Class-wise ECE with another number of bins",
        ),
        ("mce_{bins}", "MCE ({bins} bins)", "fraction", "lower", "MCE with another number of bins"),
        (
            "occlusion_{kind}_auc_{ratio}", "top-1, mean over 0 to {ratio}% occlusion, {kind}",
            "fraction", "higher",
            "Mean accuracy over a range of another kind of occlusion, by trapezoids",
        ),
        (
            "occlusion_{kind}_{ratio}", "top-1, {ratio}% occlusion, {kind}", "fraction", "higher",
            "Accuracy under another kind of occlusion",
        ),
        (
            "shuffle_{grid}", "top-1, {grid} x {grid} tiles shuffled", "fraction", "higher",
            "Accuracy with shuffled tiles",
        ),
        ("fgsm_{eps}", "top-1, FGSM {eps}/255", "fraction", "higher", "Accuracy under FGSM"),
        ("pgd_{eps}", "top-1, PGD {eps}/255", "fraction", "higher", "Accuracy under PGD"),
        (
            "corruption_{kind}_{severity}", "top-1, {kind}, severity {severity}", "fraction",
            "higher",
            "Accuracy under a common corruption",
        ),
        (
            "error_{kind}", "error, {kind}", "fraction", "lower",
            "Error under a corruption, mean over severities (ImageNet-C, CIFAR-C)",
        ),
    ),
    *_specs(
        "", ("val",), "linear probe",
        (
            "top1_lr_{lr}", "top-1 with a learning rate of {lr}", "fraction", "higher",
            "Accuracy of each classifier of a linear probe",
        ),
        ("best_lr", "best learning rate", "", "", "Learning rate of the best linear classifier"),
    ),
    *_specs(
        "", TEST, "with/localization.yaml",
        (
            "jaccard_best_head_{kind}", "Jaccard index of the best head, {kind}", "fraction",
            "higher",
            "Jaccard index of attention with masks; the best head of each class, as in IPViT, with "
            "void pixels excluded",
        ),
        (
            "jaccard_{kind}", "Jaccard index, {kind}", "fraction", "higher",
            "Jaccard index of the mean attention over heads with masks",
        ),
        (
            "corloc_{kind}", "CorLoc, {kind}", "fraction", "higher",
            "Images whose predicted box overlaps an object by at least one half",
        ),
        (
            "max_box_acc_v2_{kind}", "MaxBoxAccV2, {kind}", "fraction", "higher",
            "Box accuracy at the best threshold, mean over three IoUs",
        ),
        (
            "max_box_acc_{kind}_{iou}", "box accuracy at IoU {iou}%, {kind}", "fraction", "higher",
            "Box accuracy at the best threshold",
        ),
    ),
    *_specs(
        "", TEST, "with/knn.yaml",
        (
            "knn_{k}", "kNN top-1 (k = {k})", "fraction", "higher",
            "Accuracy of weighted nearest neighbors in frozen features",
        ),
    ),
    *_specs(
        "", VAL_AND_TEST, "",
        ("adaptive_ece", "adaptive ECE", "fraction", "lower", "ECE with bins of equal mass"),
        (
            "classwise_ece", "class-wise ECE", "fraction", "lower",
            "Mean ECE of each class's probability",
        ),
        ("mce", "MCE", "fraction", "lower", "Maximum calibration error over the bins"),
        ("nll", "NLL", "nats", "lower", "Negative log-likelihood of the true class; the loss"),
    ),
    *_specs(
        "Calibration", VAL_AND_TEST, "",
        ("brier", "Brier score", "", "lower", "Brier score, 0 to 2"),
    ),
    *_specs(
        "Errors", TEST, "",
        (
            "worst_class_top1", "top-1 of the worst class", "fraction", "higher",
            "Lowest accuracy of a class",
        ),
    ),
    *_specs(
        "Robustness", TEST, "",
        (
            "occlusion_{ratio}", "top-1, {ratio}% occlusion", "fraction", "higher",
            "Accuracy with a percentage of the patches dropped at random",
        ),
        (
            "occlusion_auc_{ratio}", "top-1, mean over 0 to {ratio}% occlusion", "fraction",
            "higher",
            "Mean accuracy over a range of occlusion, by trapezoids",
        ),
    ),
)  # fmt: skip

HEADLINE = (
    *("map", "f1_micro", "f1_macro", "label_ece"),
    *("miou", "mean_accuracy", "pixel_accuracy"),
    *("top1", "top5", "ece", "ece_scaled", "nll", "brier", "worst_class_top1"),
    *("occlusion_25", "occlusion_50", "occlusion_75", "occlusion_auc_75"),
)
"""Test metrics at the top of a report, in this order."""
SHOWN = {"occlusion_{ratio}": ("25", "50", "75"), "occlusion_auc_{ratio}": ("75",)}
"""Values of placeholders that the dashboard shows."""
