"""Metrics of downstream tasks on two ranks equal those on one, with a number of images that two do
not divide."""

import json

import pytest
import torch
from helpers import processes
from helpers.coco_scenes import write_scenes
from helpers.image_folders import write_image_folder
from helpers.programs import run_here
from helpers.segmentation_scenes import write_images
from safetensors.torch import save_file

from smmix_pl import Backbone

MODES = ("train", "test")
pytestmark = pytest.mark.slow
ARGS = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
BACKBONE = (
    *("--model.backbone=vit_tiny_patch16_224", f"--model.backbone_args={ARGS}"),
    *("--trainer.accelerator=cpu", "--data.num_workers=0"),
)


def of_ranks(words, cwd):
    """Return the metrics of a test on one rank, and on two."""
    found = []
    for ranks in (1, 2):
        name = f"of{ranks}"
        options = (f"--name={name}", f"--trainer.devices={ranks}", "--trainer.strategy=ddp")
        for result in processes.run_ranks(ranks, "test", *words, *options, cwd=cwd):
            assert result.returncode == 0, result.stderr[-2000:]
        results = json.loads((cwd / f"runs/{name}/version_0/results.json").read_text())
        assert results["run"]["ranks"] == ranks
        found.append({key: metric["value"] for key, metric in results["metrics"].items()})
    return found


def test_segmentation(tmp_path):
    root = write_images(tmp_path / "scenes", ((40, 48), (30, 50), (64, 33)))
    words = [
        *("--model=smmix_pl.downstream.SemanticSegmentation", "--data=SegmentationFolder"),
        *(f"--data.root={root}", "--data.image_size=32", "--data.batch_size=2", *BACKBONE),
    ]
    train = ["--trainer.max_epochs=2", "--model.optim.lr=0.01", "--name=own"]
    run_here("fit", *words, *train, "--model.optim.warmup_epochs=0", cwd=tmp_path)
    last = tmp_path / "runs/own/version_0/checkpoints/last.ckpt"
    one, two = of_ranks([*words, f"--ckpt_path={last}"], tmp_path)
    assert one == two
    assert 0 < one["miou"] < 1


def test_detection(tmp_path):
    """torchmetrics' own way of gathering would wait forever for the image that a rank lacks."""
    root = write_scenes(tmp_path / "scenes", ((64, 64), (48, 64), (64, 48)))
    words = [
        *("--model=smmix_pl.downstream.ObjectDetection", "--data=smmix_pl.data.COCO"),
        *(f"--data.root={root}", "--data.image_size=64", "--data.batch_size=2", *BACKBONE),
    ]
    few = {f"rpn_{when}_nms_top_n_{mode}": 50 for when in ("pre", "post") for mode in MODES}
    words.append(f"--model.detector_args={few | {'box_score_thresh': 0, 'box_nms_thresh': 0.3}}")
    train = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--name=own"]
    run_here("fit", *words, *train, cwd=tmp_path)
    last = tmp_path / "runs/own/version_0/checkpoints/last.ckpt"
    one, two = of_ranks([*words, f"--ckpt_path={last}"], tmp_path)
    assert one == two
    assert one.keys() >= {"box_map", "mask_map"}
    assert any(one.values())


@pytest.fixture
def photographs(tmp_path):
    for part in ("train", "val", "test"):
        write_image_folder(tmp_path / "images" / part, per_class=5)  # 15 images
    return tmp_path / "images"


def test_nearest_neighbors(photographs, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_file(Backbone("vit_tiny_patch16_224", 3, 32, model_args=ARGS).model.state_dict(), weights)
    words = [
        *("--config", "downstream/frozen_backbone.yaml", "--data=smmix_pl.data.Folder"),
        *(f"--data.root={photographs}", "--data.image_size=32", "--data.batch_size=2", *BACKBONE),
        *(f"--model.init_from={weights}", "--trainer.callbacks+=KNN"),
        "--trainer.callbacks.ks=[2,5]",
    ]
    one, two = of_ranks(words, tmp_path)
    assert one == two
    assert one.keys() >= {"knn_2", "knn_5"}


def test_linear_probe(photographs, tmp_path):
    words = [
        *("--config", "downstream/linear_probe.yaml", "--data=smmix_pl.data.Folder"),
        *(f"--data.root={photographs}", "--data.image_size=32", "--data.batch_size=2", *BACKBONE),
    ]
    train = ["--trainer.max_epochs=2", "--test_after_fit=false", "--name=own"]
    run_here("fit", *words, *train, cwd=tmp_path)
    last = tmp_path / "runs/own/version_0/checkpoints/last.ckpt"
    one, two = of_ranks([*words, f"--ckpt_path={last}"], tmp_path)
    assert one.keys() == two.keys()
    assert one == pytest.approx(two, abs=1e-6)
    assert one.keys() >= {"top1", "ece", "worst_class_top1"}
