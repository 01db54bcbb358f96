"""Every ImageNet recipe takes a real optimizer step: its config, the command line, real JPEGs."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from smmix_pl.cli.main import main

# Recipe: image side. Its grid is 4 x 4, the smallest with more than one size of region.
RECIPES = {
    "deit_t": 64,
    "deit_s": 64,
    "cait_xxs24": 64,
    "cait_xxs36": 64,
    "pvt_t": 128,
    "pvt_s": 128,
    "swin_t": 128,
    "pvt_v2_b1": 128,
}
LARGE = {"deit_b": 64, "pvt_m": 128, "pvt_l": 128}  # take 10 s and more to be made


class Witness(Callback):
    """Sees what one run did to the weights."""

    seen: dict

    def on_train_start(self, trainer, pl_module):
        self.before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_end(self, trainer, pl_module):
        pairs = zip(self.before, pl_module.parameters(), strict=True)
        Witness.seen = {
            "steps": trainer.global_step,
            "changed": sum(not torch.equal(old, new) for old, new in pairs),
            "finite": all(parameter.isfinite().all() for parameter in pl_module.parameters()),
            "of": len(self.before),
            "losses": {key for key in trainer.callback_metrics if key.startswith("train/loss_")},
        }


def step_of(recipe, side, imagenet_folder):
    main(
        [
            "fit",
            *("--config", f"{recipe}.yaml", f"--data.root={imagenet_folder}"),
            *(f"--data.image_size={side}", "--data.batch_size=4", "--data.num_workers=0"),
            *("--model.mixer.switch_prob=1", "--trainer.accelerator=cpu"),
            *("--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"),
            f"--trainer.callbacks+={__name__}.Witness",
        ]
    )
    seen = Witness.seen
    assert seen["steps"] == 1
    assert seen["finite"]
    assert seen["changed"] > 0.9 * seen["of"]  # stochastic depth skips some blocks
    assert {"train/loss_fine_grained_source", "train/loss_consistency"} < seen["losses"]
    assert not list(Path().rglob("*.png"))  # a fast_dev_run leaves no pictures


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_takes_an_optimiser_step(recipe, imagenet_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMMIX_PACKAGES", __name__)
    step_of(recipe, RECIPES[recipe], imagenet_folder)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", LARGE)
def test_large_recipe_takes_an_optimiser_step(recipe, imagenet_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMMIX_PACKAGES", __name__)
    step_of(recipe, LARGE[recipe], imagenet_folder)
