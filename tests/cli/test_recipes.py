"""Every ImageNet recipe takes an optimizer step: its config, the command line, real JPEGs."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback

from smmix_pl.cli.main import main
from smmix_pl.cli.precision import bf16_support

# Image side by recipe. Its grid is 4 x 4, the smallest with more than one region size.
RECIPES = {"deit_t": 64, "cait_xxs24": 64, "pvt_t": 128}
LARGER = {
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
