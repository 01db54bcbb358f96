"""Tests of a backbone without class head, through the command line."""

import json

import pytest
import torch
from helpers import data_trees
from helpers.programs import run_here
from safetensors.torch import save_file

from smmix_pl import Backbone

ARGS = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
FROZEN = (
    *("test", "--config", "downstream/frozen_backbone.yaml"),
    *("--model.backbone=vit_tiny_patch16_224", f"--model.backbone_args={json.dumps(ARGS)}"),
    *("--trainer.accelerator=cpu", "--name=frozen"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights with a head for seven classes."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = Backbone("vit_tiny_patch16_224", 7, 32, model_args=ARGS).model
    save_file(model.state_dict(), file)
    return file


def test_localization_and_knn_need_no_class_head(tmp_path, weights):
    data_trees.coco(tmp_path)
    run_here(
        *(*FROZEN, "--config", "data/coco_objects.yaml", "--config", "with/localization.yaml"),
        *("--config", "with/knn.yaml", f"--data.root={tmp_path}", f"--model.init_from={weights}"),
        *("--data.image_size=32", "--data.num_workers=0", "--trainer.callbacks.ks=[1,3]"),
        cwd=tmp_path,
    )
    run = tmp_path / "runs/frozen/version_0"
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    assert metrics.keys() >= {"jaccard_class", "corloc_tokens", "max_box_acc_v2_similarity"}
    assert metrics["knn_3"]["protocol"]["training_images"] == 3
    assert "top1" not in metrics
    assert metrics["jaccard_class"]["protocol"]["crop_mode"] == "squash"
    assert (run / "pictures/test_localization.png").is_file()
