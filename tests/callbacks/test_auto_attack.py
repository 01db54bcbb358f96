"""AutoAttack compared with the closed form of a linear model, and through the callback."""

import json
import sys

import pytest
import torch
from helpers.digits import quiet_trainer
from helpers.programs import run_here
from helpers.small_runs import digits, module, trainer
from torch import nn

from smmix_pl import Digits, InputError, NoMix
from smmix_pl.callbacks import AutoAttack
from smmix_pl.callbacks.output.results_file import plain_report
from smmix_pl.robustness.attacks import pgd, pixel_scale, random_start
from smmix_pl.robustness.auto_attack import auto_attack, require_library
from smmix_pl.runs.results import read_results

pytest.importorskip("pyautoattack")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
EPS = 8.0
ARGS = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


def linear(num_classes, images=32):
    """A linear model of 2 x 2 pixels, normalized images of gray levels around 128, and classes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
    nn.init.normal_(model[1].weight, generator=generator)
    pixels = torch.randint(60, 196, (images, 3, 2, 2), generator=generator) / 255
    normalized = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        classes = model(normalized).argmax(1)
    return model, normalized, classes


def withstands(model, images, classes):
    """A class of a linear model wins within the limit if it wins by more than eps |w|_1."""
    weight = model[1].weight.detach().view(-1, 3, 2, 2) / torch.tensor(STD).view(3, 1, 1)
    logits = model(images).detach()
    lead = logits.gather(1, classes[:, None]) - logits
    reach = EPS / 255 * (weight[classes][:, None] - weight).abs().flatten(2).sum(2)
    others = torch.ones_like(lead, dtype=torch.bool).scatter(1, classes[:, None], False)
    return (lead > reach)[others].view(len(images), -1).all(1)


def attack(model, images, classes, eps=EPS, seed=0):
    with torch.inference_mode():  # as in a test
        scale = pixel_scale(MEAN, STD, images)
        attacked = auto_attack(model, images, classes, eps, scale, seed)
    return attacked.clone()


def test_every_image_falls_that_can_fall():
    model, images, classes = linear(5)
    falls = ~withstands(model, images, classes)
    images, classes = images[falls], classes[falls]
    assert len(images) > 10
    before = torch.get_rng_state()
    attacked = attack(model, images, classes)
    assert torch.equal(torch.get_rng_state(), before)
    assert (model(attacked).argmax(1) != classes).all()
    scale = pixel_scale(MEAN, STD, images)
    assert ((attacked - images).abs() / scale.step).max() <= EPS + 1e-3
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    start = random_start(images, 0, range(len(images)))
    weaker = pgd(model, images, classes, EPS, scale, start, step=0.5)
    assert (model(weaker).argmax(1) == classes).any()


@pytest.mark.slow
def test_images_that_withstand_every_attack_are_unchanged():
    model, images, classes = linear(5)
    robust = withstands(model, images, classes)
    assert 5 < robust.sum() < len(images)
    attacked = attack(model, images, classes)
    assert torch.equal(attacked[robust], images[robust])
    assert torch.equal(model(attacked).argmax(1) == classes, robust)


def test_attacks_depend_on_the_seed_alone():
    model, images, classes = linear(12)
    first, again, other = (attack(model, images, classes, 64.0, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_too_few_classes_are_rejected(num_classes):
    model, images, classes = linear(num_classes)
    with pytest.raises(InputError, match=f"AutoAttack.*{num_classes}"):
        attack(model, images, classes)


def test_the_overlay_attacks_a_draw_of_the_test_images(tmp_path):
    scale = {"mean": Digits.own_mean, "std": Digits.own_std}
    model = module(NoMix(), backbone_args=ARGS, **scale)
    fit = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    fit.fit(model, digits())
    fit.save_checkpoint(tmp_path / "small.ckpt")
    run_here(
        *("test", "--config", "digits.yaml", "--config", "with/autoattack.yaml"),
        *("--name", "attacked", "--ckpt_path", tmp_path / "small.ckpt", "--model.mixer=NoMix"),
        *(f"--model.backbone_args={json.dumps(ARGS)}", "--data.image_size=16"),
        *("--trainer.callbacks.eps=[64]", "--trainer.callbacks.images=40"),
        *("--trainer.callbacks+=PGD", "--trainer.callbacks.eps=[64]"),
        "--trainer.callbacks.steps=2",
        cwd=tmp_path,
    )
    results = read_results(tmp_path / "runs/attacked/version_0")
    curve = results["curves"]["autoattack"]
    assert curve["images"] == 40
    assert curve["protocol"]["images"] == "drawn"
    assert curve["y"][1] == results["metrics"]["autoattack_64"]["value"] < curve["y"][0]
    assert curve["y"][1] <= results["metrics"]["pgd_64"]["value"]
    assert results["metrics"]["top1"]["images"] == 359


def test_plain_metrics_are_those_of_all_images():
    run = quiet_trainer(AutoAttack(eps=[64], images=2))
    run.test(module(NoMix(), backbone_args=ARGS), digits(), verbose=False)
    assert plain_report(run).images == 359


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(InputError, match=r"AutoAttack.*smmix-pl\[attacks\]"):
        require_library()


@pytest.mark.parametrize("images", [0, -5])
def test_invalid_numbers_of_images_are_rejected(images):
    with pytest.raises(InputError, match=rf"AutoAttack\.images={images}:"):
        AutoAttack(images=images)
