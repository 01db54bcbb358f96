"""The table of all metrics: keys, display names, units, direction, meaning, and panel.

Summary table, comparison, dashboard, HTML report, and docs/metrics.md are generated from
it. A key may hold placeholders: `occlusion_{ratio}` stands for `occlusion_25` and others.
"""

from smmix_pl.reporting.metric_rows import EVAL, TEST, VAL_AND_TEST, specs
from smmix_pl.reporting.task_metrics import TASKS

METRICS = (
    *specs(
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
    *specs(
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
    *specs(
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
    *specs(
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
    *specs(
        "Validation", EVAL, "",
        ("top1", "top-1", "fraction", "higher", "Accuracy"),
        ("top5", "top-5", "fraction", "higher", "Accuracy within the five most probable classes"),
        ("loss", "loss", "nats", "lower", "Cross entropy"),
    ),
    *specs(
        "Calibration", EVAL, "",
        ("ece", "ECE", "fraction", "lower", "Expected calibration error, 15 bins"),
    ),
    *TASKS,
    *specs(
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
            "aurc", "AURC", "fraction", "lower",
            "Area under the risk-coverage curve: mean error over all coverages, the most confident "
            "images first",
        ),
        (
            "e_aurc", "E-AURC", "fraction", "lower",
            "AURC minus that of the same predictions in a perfect order",
        ),
        (
            "risk_{coverage}", "error at {coverage}% coverage", "fraction", "lower",
            "Error of the most confident images, a percentage of all",
        ),
        (
            "conformal_coverage_{kind}_{target}", "sets with the true class, {kind} at {target}%",
            "fraction", "",
            "Conformal prediction sets that hold the true class; should equal the target",
        ),
        (
            "conformal_size_{kind}_{target}", "classes in a set, {kind} at {target}%", "", "lower",
            "Mean number of classes in a conformal prediction set",
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
    *specs(
        "", TEST, "with/autoattack.yaml",
        (
            "autoattack_{eps}", "top-1, AutoAttack {eps}/255", "fraction", "higher",
            "Accuracy under AutoAttack, of a draw of the test images",
        ),
    ),
    *specs(
        "", TEST, "with/tta.yaml",
        (
            "tta_top1", "top-1, mean over mirror images", "fraction", "higher",
            "Accuracy of the mean probabilities of an image and its mirror image",
        ),
        ("tta_ece", "ECE, mean over mirror images", "fraction", "lower", "The same for ECE"),
        ("tta_nll", "NLL, mean over mirror images", "nats", "lower", "The same for NLL"),
    ),
    *specs(
        "", VAL_AND_TEST, "",
        ("adaptive_ece", "adaptive ECE", "fraction", "lower", "ECE with bins of equal mass"),
        (
            "classwise_ece", "class-wise ECE", "fraction", "lower",
            "Mean ECE of each class's probability",
        ),
        ("mce", "MCE", "fraction", "lower", "Maximum calibration error over the bins"),
        ("nll", "NLL", "nats", "lower", "Negative log-likelihood of the true class; the loss"),
    ),
    *specs(
        "Calibration", VAL_AND_TEST, "",
        ("brier", "Brier score", "", "lower", "Brier score, 0 to 2"),
    ),
    *specs(
        "Errors", TEST, "",
        (
            "worst_class_top1", "top-1 of the worst class", "fraction", "higher",
            "Lowest accuracy of a class",
        ),
    ),
    *specs(
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
    *("box_map", "mask_map"),
    *("map", "f1_micro", "f1_macro", "label_ece"),
    *("miou", "mean_accuracy", "pixel_accuracy"),
    *("top1", "top5", "ece", "ece_scaled", "nll", "brier", "worst_class_top1"),
    *("occlusion_25", "occlusion_50", "occlusion_75", "occlusion_auc_75"),
)
"""Test metrics at the top of a report, in this order."""
