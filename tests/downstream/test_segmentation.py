"""Semantic segmentation: pyramid, decoders, scores, and a run from the command line."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from helpers.programs import refusal, run_here
from helpers.segmentation_scenes import write_images
from helpers.small_backbones import SMALL
from PIL import Image

from smmix_pl.cli.main import main
from smmix_pl.downstream.decoders import SemanticFPN, UPerNet
from smmix_pl.downstream.pyramid import FeaturePyramid
from smmix_pl.downstream.sliding import slide, whole
from smmix_pl.metrics.segmentation_scores import segmentation_scores


def words(root, command="fit"):
    return [
        command,
        *("--model=smmix_pl.downstream.SemanticSegmentation", "--data=SegmentationFolder"),
        *("--model.backbone=vit_tiny_patch16_224", f"--data.root={root}", "--data.image_size=32"),
        "--model.backbone_args={patch_size: 8, embed_dim: 24, depth: 4, num_heads: 2}",
        *("--data.num_workers=0", "--data.batch_size=2", "--trainer.accelerator=cpu"),
        *("--data.scale=[1.0, 1.0]", "--data.max_class_ratio=1.0", "--model.optim.lr=0.01"),
    ]


@pytest.mark.parametrize("name", SMALL)
def test_pyramid_has_maps_at_four_strides(name):
    pyramid = FeaturePyramid(name, (64, 96), SMALL[name])
    maps = pyramid(torch.randn(2, 3, 64, 96))
    shapes = [tuple(one.shape[1:]) for one in maps]
    sizes = [(64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    assert shapes == [(c, *size) for c, size in zip(pyramid.channels, sizes, strict=True)]
    for decoder in (SemanticFPN, UPerNet):
        assert decoder(pyramid.channels, 8)(maps).shape == (2, 8, 16, 24)
    sum(one.mean() for one in maps).backward()
    assert all(weight.grad is not None for weight in pyramid.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_normalized_on_request(name):
    pyramid = FeaturePyramid(name, (64, 64), SMALL[name], norm_maps=True)
    pyramid.scales = torch.nn.ModuleList(torch.nn.Identity() for _ in pyramid.scales)
    for one in pyramid(3 * torch.randn(2, 3, 64, 64)):
        assert one.mean(dim=1).abs().max() < 1e-4
        assert float(one.std(dim=1, correction=0).mean()) == pytest.approx(1, abs=0.05)


def test_scores_are_those_of_pixels():
    generator = torch.Generator().manual_seed(0)
    true, found = torch.randint(0, 4, (2, 500), generator=generator)
    true[true == 3] = 2  # class 3 is predicted, but never true
    confusion = torch.zeros(5, 5, dtype=torch.long)
    for row, column in zip(true, found, strict=True):
        confusion[row, column] += 1
    scores = segmentation_scores(confusion)
    iou = [
        float(((true == k) & (found == k)).sum() / ((true == k) | (found == k)).sum())
        for k in range(4)
    ]
    assert scores.iou[:4].tolist() == pytest.approx(iou)
    assert bool(scores.iou[4].isnan())
    assert float(scores.miou) == pytest.approx(np.mean(iou))
    recall = [float((found[true == k] == k).float().mean()) for k in range(3)]
    assert float(scores.mean_accuracy) == pytest.approx(np.mean(recall))
    assert float(scores.pixel_accuracy) == pytest.approx(float((true == found).float().mean()))


@pytest.mark.parametrize("size", [(20, 50), (64, 64), (70, 33)])
def test_windows_and_whole_images_cover_every_pixel(size):
    images = torch.randn(1, 3, *size)
    for infer in (
        lambda x: slide(torch.tanh, x, (32, 32), 1 / 3),
        lambda x: whole(torch.tanh, x, 32),
    ):
        assert infer(images).allclose(images.tanh(), atol=1e-6)


def test_a_run_learns_resumes_exactly_and_reports(tmp_path):
    root = write_images(tmp_path / "scenes", ((40, 48), (30, 50), (40, 48), (64, 33)))
    options = ["--trainer.max_epochs=8", "--trainer.check_val_every_n_epoch=4"]
    options += ["--model.optim.warmup_epochs=0", "--name=own"]
    kept = ["ModelCheckpoint", "filename={epoch}", "save_top_k=-1", "every_n_epochs=2"]
    options += [f"--trainer.callbacks+={kept[0]}", *(f"--trainer.callbacks.{o}" for o in kept[1:])]
    run_here(*words(root), *options, cwd=tmp_path)
    run = tmp_path / "runs/own/version_0"
    begun = run / "checkpoints/epoch=3.ckpt"
    run_here(*words(root), *options[:3], "--name=again", f"--ckpt_path={begun}", cwd=tmp_path)
    ends = [
        torch.load(tmp_path / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)
        for name in ("own", "again")
    ]
    assert ends[1]["global_step"] == ends[0]["global_step"] == 16
    for name, weight in ends[0]["state_dict"].items():
        assert torch.equal(weight, ends[1]["state_dict"][name]), name
    test = [*words(root, "test"), f"--ckpt_path={run}/checkpoints/last.ckpt", "--name=tested"]
    test += ["--trainer.callbacks+=SegmentationPictures"]
    assert "mIoU" in run_here(*test, cwd=tmp_path)
    tested = tmp_path / "runs/tested/version_0"
    results = json.loads((tested / "results.json").read_text())
    assert results["run"]["task"] == "semantic segmentation"
    assert results["metrics"]["iou_bright"]["value"] > 0.5
    assert Image.open(tested / "pictures/test_segmentation.png").size[0] > 100


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "pvt_tiny"])
def test_an_auxiliary_head_adds_its_weighted_loss(name, tmp_path):
    run_here(
        *words(write_images(tmp_path / "scenes")),
        *(f"--model.backbone={name}", f"--model.backbone_args={json.dumps(SMALL[name])}"),
        *("--model.decoder=upernet", "--model.auxiliary_weight=0.4", "--name=own"),
        *("--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"),
        cwd=tmp_path,
    )
    with open(tmp_path / "runs/own/version_0/metrics.csv") as file:
        first = next(row for row in csv.DictReader(file) if row["train/loss"])
    loss, main_loss, auxiliary = (
        float(first[f"train/loss{part}"]) for part in ("", "_segmentation", "_auxiliary")
    )
    assert loss == pytest.approx(main_loss + auxiliary, rel=1e-4)
    assert auxiliary == pytest.approx(0.4 * math.log(2), rel=0.1)  # logits are near 0 at first
    assert "time/train" in first and "time/mix" not in first  # the task has no mixer


def broken(root, change):
    write_images(root)
    change(root)
    return words(root)


BAD = {
    "missing mask": (lambda r: (r / "train/masks/1.png").unlink(), ("1.png", "1.jpg")),
    "mask of another size": (
        lambda r: Image.new("L", (9, 9)).save(r / "train/masks/0.png"),
        ("0.png", "0.jpg", "9 x 9"),
    ),
    "unknown class": (
        lambda r: Image.new("L", (48, 40), 7).save(r / "train/masks/0.png"),
        ("0.png", "value 7", "1,920"),
    ),
    "color mask": (
        lambda r: Image.new("RGB", (48, 40)).save(r / "train/masks/0.png"),
        ("0.png", "RGB"),
    ),
    "no class names": (lambda r: (r / "classes.txt").unlink(), ("classes.txt",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_reported(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    change, parts = BAD[case]
    options = ["--trainer.max_epochs=1", "--trainer.callbacks=[]", "--trainer.logger=false"]
    line = refusal(main, [*broken(tmp_path / "data", change), *options], capsys)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("--data.image_size=40", ("data.image_size", "16")),
        ("--model.decoder=unet", ("decoder", "unet")),
        ("--model.frozn=true", ("frozn", "frozen")),
        ("--model.backbone=resnet18", ("resnet18",)),
        ("--trainer.callbacks+=smmix_pl.callbacks.EMA", ("EMA.validate_weights=true",)),
        ("--trainer.callbacks+=smmix_pl.callbacks.Calibration", ("Calibration", "segmentation")),
    ],
)
def test_bad_options_are_reported(option, parts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    root = write_images(tmp_path / "data")
    options = [*words(root), "--trainer.max_epochs=1", "--trainer.logger=false", option]
    line = refusal(main, options, capsys)
    assert all(part in line for part in parts), line


@pytest.mark.slow
def test_a_few_images_are_learned(tmp_path):
    root = write_images(tmp_path / "scenes")
    run_here(
        *words(root),
        *("--trainer.max_epochs=100", "--model.optim.warmup_epochs=0", "--name=few"),
        *("--trainer.check_val_every_n_epoch=100", "--test_after_fit=true"),
        cwd=tmp_path,
    )
    results = json.loads((tmp_path / "runs/few/version_0/results.json").read_text())
    assert results["metrics"]["miou"]["value"] > 0.9
