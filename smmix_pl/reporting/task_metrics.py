"""Metrics of downstream tasks, and of attention where objects are known."""

from smmix_pl.reporting.metric_rows import TEST, VAL_AND_TEST, specs

AVERAGE_PRECISIONS = (
    ("", "", "mean over IoUs of 50 to 95% and classes, as COCO defines it"),
    ("_50", " at IoU 50%", "at an IoU of 50%"),
    ("_75", " at IoU 75%", "at an IoU of 75%"),
    ("_small", ", small objects", "of objects below 32 x 32 pixels"),
    ("_medium", ", medium objects", "of objects from 32 x 32 to 96 x 96 pixels"),
    ("_large", ", large objects", "of objects above 96 x 96 pixels"),
)
"""Suffix of the key and of the name, and meaning."""

TASKS = (
    *specs(
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
    *specs(
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
    *specs(
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
    *specs(
        "Segmentation", TEST, "segmentation",
        ("iou_{kind}", "IoU, {kind}", "fraction", "higher", "Intersection over union of a class"),
    ),
    *specs(
        "Detection", (), "detection",
        ("train/loss_objectness", "objectness loss", "nats", "lower", "Proposals (Mask R-CNN)"),
        ("train/loss_proposal_box", "proposal box loss", "", "lower", "Proposals (Mask R-CNN)"),
        ("train/loss_box_class", "box class loss", "nats", "lower", "Classes of the boxes"),
        ("train/loss_box", "box loss", "", "lower", "Edges of the boxes"),
        ("train/loss_mask", "mask loss", "nats", "lower", "Pixels of the masks (Mask R-CNN)"),
    ),
    *specs(
        "Detection", VAL_AND_TEST, "detection",
        *(
            (
                f"{kind}_map{suffix}", f"{kind} AP{name}", "fraction", "higher",
                f"Average precision of {things}, {meaning}",
            )
            for kind, things in (("box", "boxes"), ("mask", "masks"))
            for suffix, name, meaning in AVERAGE_PRECISIONS
        ),
    ),
    *specs(
        "", ("val",), "linear probe",
        (
            "top1_lr_{lr}", "top-1 with a learning rate of {lr}", "fraction", "higher",
            "Accuracy of each classifier of a linear probe",
        ),
        ("best_lr", "best learning rate", "", "", "Learning rate of the best linear classifier"),
    ),
    *specs(
        "Attention", VAL_AND_TEST, "with/guide_quality.yaml",
        (
            "guide_pasted_{side}", "object pasted, side {side}%", "fraction", "higher",
            "Fraction of the objects inside the most-attended window",
        ),
        (
            "guide_hidden_{side}", "object hidden, side {side}%", "fraction", "lower",
            "Fraction of the objects inside the least-attended window",
        ),
        (
            "guide_random_{side}", "object in random windows, side {side}%", "fraction", "",
            "Mean fraction of the objects inside a window: baseline of the two above",
        ),
    ),
    *specs(
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
    *specs(
        "", TEST, "with/knn.yaml",
        (
            "knn_{k}", "kNN top-1 (k = {k})", "fraction", "higher",
            "Accuracy of weighted nearest neighbors in frozen features",
        ),
    ),
)  # fmt: skip
