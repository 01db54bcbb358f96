"""Every recipe for photographs takes a step: its config, the command line, real JPEGs."""

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from helpers.coco_scenes import write_scenes
from helpers.programs import run_here
from lightning.pytorch import Callback
from safetensors.torch import save_file

from smmix_pl.cli.main import main
from smmix_pl.cli.precision import bf16_support

# Image side by recipe. Its grid is 4 x 4, the smallest with more than one region size.
RECIPES = {"deit_t": 64, "pvt_t": 128}
LARGER = {
    "cait_xxs24": 64,
    "deit_s": 64,
    "deit_b": 64,
    "cait_xxs36": 64,
    "pvt_s": 128,
    "pvt_m": 128,
    "pvt_l": 128,
    "pvt_v2_b1": 128,
    "swin_t": 128,
}
CASES = [
    *(pytest.param(recipe, side, id=recipe) for recipe, side in RECIPES.items()),
    *(
        pytest.param(recipe, side, id=recipe, marks=pytest.mark.slow)
        for recipe, side in LARGER.items()
    ),
]


class WeightChange(Callback):
    """Records what one run did to the weights."""

    seen: dict

    def on_train_start(self, trainer, pl_module):
        self.before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_end(self, trainer, pl_module):
        pairs = list(zip(self.before, pl_module.parameters(), strict=True))
        WeightChange.seen = {
            "steps": trainer.global_step,
            "precision": trainer.precision,
            "changed": sum(bool((old != new).any()) for old, new in pairs) / len(pairs),
            "finite": all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters()),
            "losses": {key for key in trainer.callback_metrics if key.startswith("train/loss_")},
        }


@pytest.mark.parametrize(("recipe", "side"), CASES)
def test_recipe_takes_an_optimizer_step(recipe, side, imagenet_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMMIX_PACKAGES", __name__)
    main(
        [
            "fit",
            *("--config", f"{recipe}.yaml", f"--data.root={imagenet_folder}"),
            *(f"--data.image_size={side}", "--data.batch_size=4", "--data.num_workers=0"),
            *("--model.mixer.switch_prob=1", "--trainer.accelerator=cpu"),
            *("--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"),
            *("--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0"),
            f"--trainer.callbacks+={__name__}.WeightChange",
        ]
    )
    seen = WeightChange.seen
    assert seen["steps"] == 1
    assert seen["precision"] == ("bf16-mixed" if bf16_support("cpu")[1] else "32-true")
    assert seen["finite"]
    assert seen["changed"] > 0.9  # stochastic depth skips some blocks
    assert {"train/loss_fine_grained_source", "train/loss_consistency"} < seen["losses"]
    assert not list(Path().rglob("*.png"))  # a fast_dev_run draws no figures


FEW = "--model.detector_args={rpn_post_nms_top_n_train: 50, box_batch_size_per_image: 16}"
DETECTION = {
    "pvt_s_mask_rcnn": ["--data.longest=64", FEW],
    "pvt_s_retinanet": ["--data.longest=64"],
    "swin_t_mask_rcnn": ["--data.longest=64", "--data.shortest=[48, 64]", FEW],
    "deit_s_vitdet": [FEW],
}
"""Options that make images small and regions few."""


def detection(recipe):
    return ["fit", "--config", f"downstream/detection_{recipe}_coco.yaml"]


@pytest.mark.parametrize("recipe", DETECTION)
def test_detection_recipe_parses(recipe, tmp_path):
    with pytest.raises(SystemExit) as stop:
        run_here(*detection(recipe), "--print_config", cwd=tmp_path)
    assert not stop.value.code


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DETECTION)
def test_detection_recipe_takes_an_optimizer_step(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("SMMIX_PACKAGES", __name__)
    root = write_scenes(tmp_path / "scenes")
    run_here(
        *(*detection(recipe), f"--data.root={root}", "--data.image_size=64"),
        *("--data.batch_size=2", "--data.num_workers=0", "--trainer.accelerator=cpu"),
        *("--trainer.fast_dev_run=1", "--trainer.log_every_n_steps=1", *DETECTION[recipe]),
        *(f"--trainer.callbacks+={__name__}.WeightChange", "--trainer.limit_val_batches=0"),
        cwd=tmp_path,
    )
    seen = WeightChange.seen
    assert seen["steps"] == 1
    assert seen["finite"]
    assert seen["changed"] > 0.9
    assert ("train/loss_mask" in seen["losses"]) == ("retinanet" not in recipe)


class FirstStep(Callback):
    """Records what fine-tuning starts from."""

    seen: dict

    def on_train_start(self, trainer, pl_module):
        [optimizer] = trainer.optimizers
        FirstStep.seen = {
            "normalization": (pl_module.hparams["mean"], pl_module.hparams["std"]),
            "crop": trainer.datamodule.eval_recipe.crop_ratio,
            "rates": {group.get("lr_scale") for group in optimizer.param_groups},
            "weights": pl_module.backbone.model.blocks[1].attn.qkv.weight.detach().clone(),
        }


def test_fine_tuning_starts_from_pretrained_weights_and_their_preparation(
    imagenet_folder, tmp_path, monkeypatch
):
    """From a copy of the Hub's cache, as on a machine without network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMMIX_PACKAGES", __name__)
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    weights = timm.create_model("vit_tiny_patch16_224", **small).state_dict()
    cached = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0123456789")
    (cached / "snapshots/0123456789").mkdir(parents=True)
    save_file(weights, cached / "snapshots/0123456789/model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    main(
        [
            *("fit", "--config=finetune.yaml", f"--data.root={imagenet_folder}"),
            *("--model.backbone=vit_tiny_patch16_224", f"--model.backbone_args={small}"),
            *("--data.image_size=64", "--data.batch_size=4", "--data.num_workers=0"),
            *("--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"),
            f"--trainer.callbacks+={__name__}.FirstStep",
        ]
    )
    seen = FirstStep.seen
    assert seen["normalization"] == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert seen["crop"] == 0.9
    assert seen["rates"] == {0.65**n for n in range(4)}  # heads, two blocks, stem
    assert torch.equal(seen["weights"], weights["blocks.1.attn.qkv.weight"])
