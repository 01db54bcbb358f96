"""The linear probe on the digits, through the command line."""

import json

import pytest
import timm
import torch
from helpers.digits import quiet_trainer
from helpers.programs import refusal, run_here
from torch.nn import functional as F

from smmix_pl import Digits
from smmix_pl.callbacks import EMA
from smmix_pl.cli.main import main
from smmix_pl.downstream import LinearProbe

BACKBONE = "{patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}"
PROBE = (
    *("fit", "--config", "downstream/linear_probe.yaml", "--data=smmix_pl.Digits"),
    *("--data.image_size=32", "--data.num_workers=0", "--data.batch_size=64"),
    *("--model.backbone=vit_tiny_patch16_224", f"--model.backbone_args={BACKBONE}"),
    *("--trainer.accelerator=cpu", "--trainer.limit_train_batches=3", "--name=probe"),
    *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"),
)
EVERY_EPOCH = (
    *("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"),
    *("--trainer.callbacks.filename={epoch}", "--trainer.callbacks.monitor=val/best_lr"),
)


def weights(file):
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A folder with a probe of two epochs and its test."""
    folder = tmp_path_factory.mktemp("probe")
    run_here(*PROBE, *EVERY_EPOCH, cwd=folder)
    return folder / "runs/probe/version_0"


def test_the_test_reports_the_metrics_of_a_classifier(probed):
    results = json.loads((probed / "results.json").read_text())
    assert results["metrics"].keys() >= {"top1", "top5", "loss", "nll", "ece", "worst_class_top1"}
    assert results["metrics"]["top1"]["images"] == 359
    assert results["run"]["checkpoint"].endswith("best.ckpt")
    assert "val/top1_lr_0.1" in (probed / "metrics.csv").read_text()


def test_the_backbone_is_unchanged_and_every_classifier_trained(probed):
    first, last = (weights(probed / f"checkpoints/epoch={epoch}.ckpt") for epoch in (0, 1))
    for name, value in last.items():
        if name.startswith(("backbone.", "sweep.heads.")):
            assert torch.equal(value, first[name]) == name.startswith("backbone."), name


def test_a_probe_resumes_exactly(probed, tmp_path):
    first = probed / "checkpoints/epoch=0.ckpt"
    run_here(*PROBE, "--test_after_fit=false", f"--ckpt_path={first}", cwd=tmp_path)
    resumed = weights(tmp_path / "runs/probe/version_0/checkpoints/last.ckpt")
    complete, begun = weights(probed / "checkpoints/last.ckpt"), weights(first)
    assert not torch.equal(begun["sweep.heads.0.weight"], complete["sweep.heads.0.weight"])
    assert resumed.keys() == complete.keys()
    assert all(torch.equal(value, complete[name]) for name, value in resumed.items())


def test_an_export_has_the_best_classifier_as_its_head(probed, tmp_path):
    checkpoint = probed / "checkpoints/best.ckpt"
    run_here("export", checkpoint, "--output", "exported", cwd=tmp_path)
    exported = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = LinearProbe.load_from_checkpoint(checkpoint).eval()(images)
        torch.testing.assert_close(exported(images), expected, rtol=1e-4, atol=1e-5)


def test_the_best_classifiers_of_averaged_checkpoints_must_be_the_same(probed, tmp_path, capsys):
    first = probed / "checkpoints/epoch=0.ckpt"
    content = torch.load(first, weights_only=True)
    content["state_dict"]["best"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    words = ["average", first, tmp_path / "other.ckpt", "--output", tmp_path / "average.ckpt"]
    assert "best" in refusal(main, words, capsys)


def test_the_best_classifier_is_that_of_the_validated_average(tmp_path):
    """The initial choice, a classifier that hardly learns, must not stay in the average."""
    module, ema = probe(lr_factors=[1e-9, 1e-8, 10.0]), EMA(decay=0.5, validate_weights=False)
    trainer = quiet_trainer(ema, max_epochs=1)
    trainer.fit(module, Digits(image_size=32, batch_size=64, num_workers=0))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["state_dict"]["best"] == content["current_model_state"]["best"] == 2
    assert module.best == 2


def test_a_calibration_is_refused(probed, monkeypatch, capsys):
    monkeypatch.chdir(probed.parents[2])
    checkpoint = probed / "checkpoints/best.ckpt"
    assert "LinearProbe" in refusal(main, ["calibrate", checkpoint], capsys)


def probe(**arguments):
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    backbone = {"backbone": "vit_tiny_patch16_224", "backbone_args": args}
    return LinearProbe(10, (32, 32), 64, **backbone, **arguments)


def test_a_factor_scales_the_learning_rate_of_its_classifier():
    """Three steps with a factor equal those of an SGD with the scaled rate."""
    swept, images = probe(lr_factors=[0.5, 2.0]).train(), torch.randn(3, 8, 3, 32, 32)
    classes = torch.arange(8)
    single = {factor: probe(lr_factors=[factor]).train() for factor in (0.5, 2.0)}
    for index, (factor, one) in enumerate(single.items()):
        one.sweep.heads[0].load_state_dict(swept.sweep.heads[index].state_dict())
        optimizer = torch.optim.SGD(one.sweep.heads.parameters(), lr=0.1 * factor, momentum=0.9)
        for batch in images:
            optimizer.zero_grad()
            F.cross_entropy(one.all_logits(batch)[0], classes).backward()
            optimizer.step()
    optimizer = torch.optim.SGD(swept.sweep.heads.parameters(), lr=0.1, momentum=0.9)
    for batch in images:
        optimizer.zero_grad()
        swept.sweep.losses(swept.all_logits(batch), classes)[0].backward()
        optimizer.step()
    for index, one in enumerate(single.values()):
        assert torch.allclose(swept.sweep.heads[index].weight, one.sweep.heads[0].weight, atol=1e-6)


def test_the_best_classifier_on_the_validation_data_is_selected():
    """A classifier of the nearest class mean is better than random ones."""
    module = probe(lr_factors=[0.1, 1.0, 10.0]).eval()
    data = Digits(image_size=32, batch_size=100, num_workers=0)
    data.setup("validate")
    images, classes = zip(
        *(data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()), strict=True
    )
    classes = torch.cat(classes)
    with torch.no_grad():
        features = torch.cat([module.backbone.model(batch) for batch in images])
        norm = module.sweep.norm
        means = torch.stack([features[classes == label].mean(0) for label in range(10)])
        norm.running_mean, norm.running_var = features.mean(0), features.var(0)
        module.sweep.heads[2].weight.copy_(means - features.mean(0))
    trainer = quiet_trainer()
    [metrics] = trainer.validate(module, data, verbose=False)
    assert int(module.best) == 2
    assert metrics["val/best_lr"] == pytest.approx(1.0)
    assert metrics["val/top1"] == pytest.approx(metrics["val/top1_lr_1"])
    with torch.no_grad():
        correct = [(module(batch).argmax(1)) for batch in images]
    assert metrics["val/top1"] == pytest.approx(
        float((torch.cat(correct) == classes).float().mean())
    )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model.optim.name=adamw"], "model.optim.name=adamw"),
        (["--model.optim.weight_decay=0.1"], "model.optim.weight_decay=0.1"),
        (["--model.lr_factors=[]"], "model.lr_factors=[]"),
        (["--data.batch_size=1"], "data.batch_size=1"),
        (["--model.lr_factors=[-1]"], "model.lr_factors=-1"),
        (["--model.init_from=missing.ckpt"], "missing.ckpt"),
    ],
)
def test_unusable_settings_are_refused(words, part, capsys):
    assert part in refusal(main, [*PROBE, *words], capsys)
