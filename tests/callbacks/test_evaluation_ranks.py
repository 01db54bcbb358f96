"""Evaluation on two ranks of which one has no readable image."""

import json

from helpers import processes
from helpers.image_folders import write_image_folder
from helpers.programs import TINY_FLAGS


def corrupt_every_second_image(folder):
    """Corrupt all images of the second of two ranks: images are dealt out in order."""
    for file in sorted(folder.glob("*/*.JPEG"))[1::2]:
        file.write_bytes(b"not a JPEG")


def test_a_rank_without_readable_images_takes_part_in_every_reduction(tmp_path):
    """In validation during fit, and in a test of most evaluations. A failure is a timeout."""
    for part in ("train", "val"):
        write_image_folder(tmp_path / "images" / part)
    corrupt_every_second_image(tmp_path / "images" / "val")
    results = processes.run_ranks(
        2,
        *("fit", "--config", "digits.yaml", "--name", "digits", *TINY_FLAGS),
        *("--data=smmix_pl.data.Folder", "--data.root=images", "--data.batch_size=2"),
        *("--data.bad_images=skip", "--trainer.devices=2", "--trainer.strategy=ddp"),
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1"),
        *("--trainer.check_val_every_n_epoch=1", "--trainer.callbacks+=OutlierDetection"),
        "--trainer.callbacks.outliers=smmix_pl.data.Folder",
        *("--trainer.callbacks.outliers.root=images", "--trainer.callbacks.outliers.image_size=32"),
        *("--trainer.callbacks.outliers.num_workers=0", "--trainer.callbacks.outliers.val=train"),
        *("--trainer.callbacks+=KNN", "--trainer.callbacks.ks=[2,5]"),
        *("--trainer.callbacks+=ConformalSets", "--trainer.callbacks.alpha=[0.3]"),
        *("--trainer.callbacks+=SelectivePrediction", "--trainer.callbacks+=TTA"),
        cwd=tmp_path,
    )
    for result in results:
        assert result.returncode == 0, result.stderr[-2000:]
    run = tmp_path / "runs/digits/version_0"
    assert "val/top1" in (run / "metrics.csv").read_text()
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    names = ("top1", "ece", "occlusion_50", "worst_class_top1", "aurc", "tta_top1")
    for name in (*names, "conformal_size_lac_70"):
        assert metrics[name]["images"] == 6, name
    assert metrics["ood_auroc"]["protocol"]["outlier_images"] == 12
    # the training images of both ranks, without those held out: 5 of one and 4 of the other
    assert metrics["knn_2"]["protocol"]["training_images"] == 9
    assert metrics["conformal_size_lac_70"]["protocol"]["calibration_images"] == 3
