"""`smmix calibrate` on a real run."""

import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from helpers.programs import refusal, run_here
from torch.nn import functional as F

from smmix_pl import SMMixModule
from smmix_pl.cli.main import main
from smmix_pl.cli.temperature_fit import fit_temperature

RECIPE = [
    "--config=digits.yaml",
    "--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}",
]
MEASURED = "--trainer.callbacks=[smmix_pl.callbacks.Calibration, smmix_pl.callbacks.ResultsFile]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a short digits run that was calibrated."""
    folder = tmp_path_factory.mktemp("calibrate")
    run_here(
        *("fit", *RECIPE, "--trainer.max_epochs=1", "--name=digits", "--test_after_fit=false"),
        *("--trainer.limit_train_batches=8", "--trainer.check_val_every_n_epoch=1"),
        *("--trainer.callbacks=[ModelCheckpoint]", "--trainer.callbacks.filename=best"),
        cwd=folder,
    )
    best = Path("runs/digits/version_0/checkpoints/best.ckpt")
    output = best.with_name("best_calibrated.ckpt")
    run_here("calibrate", best, "--output", output, cwd=folder)
    return folder / "runs/digits/version_0"


def metrics_of(run, name):
    checkpoint = f"runs/digits/version_0/checkpoints/{name}.ckpt"
    words = ["test", *RECIPE, MEASURED, f"--ckpt_path={checkpoint}", f"--name={name}"]
    run_here(*words, "--trainer.limit_test_batches=2", cwd=run.parents[2])
    results = json.loads((run.parents[1] / name / "version_0/results.json").read_text())
    return results["metrics"]


def test_predictions_stay_and_their_probabilities_fit_the_validation_set(run):
    names = ("best", "best_calibrated")
    before, after = (run / "checkpoints" / f"{name}.ckpt" for name in names)
    temperature = torch.load(after, weights_only=True)["temperature"]
    images = torch.randn(4, 3, 20, 20)
    logits = [
        SMMixModule.load_from_checkpoint(file, weights_only=True).eval()(images)
        for file in (before, after)
    ]
    torch.testing.assert_close(logits[1] * temperature, logits[0])
    metrics = [metrics_of(run, name) for name in names]
    assert metrics[0]["top1"] == metrics[1]["top1"]
    assert metrics[0]["nll"] != metrics[1]["nll"]


def test_the_temperature_has_the_highest_likelihood():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator)
    classes = torch.multinomial((3 * logits).softmax(dim=1), 1, generator=generator)[:, 0]
    temperature = fit_temperature(logits, classes)
    nll = [float(F.cross_entropy(logits / t, classes)) for t in (temperature, 1 / 3, 1.0)]
    assert nll[0] <= nll[1] < nll[2]


def test_a_checkpoint_elsewhere_needs_a_dataset(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes((run / "checkpoints/best.ckpt").read_bytes())
    line = refusal(main, ["calibrate", checkpoint], capsys)
    assert str(checkpoint) in line
    assert "--config" in line


@pytest.mark.parametrize("config", ["recipe", "config of a run"])
def test_the_images_may_be_those_of(config, run, tmp_path):
    file = "digits.yaml" if config == "recipe" else run / "config.yaml"
    assert "good" in run_here("check-data", "--config", file, cwd=tmp_path)
    words = ("--config", file, "--output", "calibrated.ckpt")
    assert "Temperature" in run_here(
        "calibrate", run / "checkpoints/best.ckpt", *words, cwd=tmp_path
    )


def test_images_of_another_dataset_are_prepared_as_in_the_training(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    content["hyper_parameters"] |= {"mean": (0.2, 0.3, 0.4), "std": (0.7, 0.8, 0.9)}
    content["prepared"]["crop_pct"] = 0.5
    torch.save(content, "trained.ckpt")

    def temperature(*options):
        main(["calibrate", "trained.ckpt", "--config=digits.yaml", *options])
        return torch.load("trained_calibrated.ckpt", weights_only=True)["temperature"]

    crop = "--data.eval_transform.crop_ratio="
    same = ("--data.mean=[0.2, 0.3, 0.4]", "--data.std=[0.7, 0.8, 0.9]", f"{crop}0.5")
    others = ("--data.mean=[0.5, 0.5, 0.5]", "--data.std=[0.5, 0.5, 0.5]", f"{crop}1.0")
    expected = temperature(*same)
    assert temperature(f"{crop}null") == expected
    for other in others:
        assert temperature(f"{crop}null", other) != expected


@pytest.mark.slow
def test_training_does_not_resume_from_a_calibrated_checkpoint(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parents[2])
    checkpoint = run / "checkpoints/best_calibrated.ckpt"
    words = ["fit", *RECIPE, f"--ckpt_path={checkpoint}", "--name=again"]
    assert "checkpoint" in refusal(main, words, capsys)


def test_an_export_carries_the_temperature_and_a_model_card(run):
    run_here(
        *("export", "runs/digits/version_0/checkpoints/best_calibrated.ckpt"),
        *("--output", "exported"),
        cwd=run.parents[2],
    )
    exported = run.parents[2] / "exported"
    card = (exported / "README.md").read_text()
    header, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(header)["library_name"] == "timm"
    temperature = torch.load(run / "checkpoints/best_calibrated.ckpt", weights_only=True)
    assert f"{temperature['temperature']:.3f}" in text
    assert "vit_tiny_patch16_224" in text
    assert "SMMix" in text
    assert timm.create_model(f"local-dir:{exported}", pretrained=True).num_classes == 10
