"""Layouts of the owners of segmentation datasets, read by a training step of the command line."""

import csv

import numpy as np
import pytest
import torch
from helpers import data_trees
from helpers.data_trees import put
from helpers.programs import run_here
from PIL import Image

from smmix_pl import InputError
from smmix_pl.data import ADE20K, CamVid, VOCSegmentation
from smmix_pl.data.color_distortion import distort_colors

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


def write_mask(file, values):
    """Write a mask of 40 x 30 pixels with a value per row of ten."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(np.uint8(values), 10)[:, None].repeat(40, axis=1)).save(file)


def ade20k(root):
    folder = root / "ADEChallengeData2016"
    rows = [f"{n}\t0.1\t10\t1\t0\tobject {n}, thing" for n in range(1, 151)]
    put(folder / "objectInfo150.txt", "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]))
    for part in ("training", "validation"):
        for number in (1, 2):
            name = f"ADE_{part}_{number:08}"
            put(folder / "images" / part / f"{name}.jpg")
            write_mask(folder / "annotations" / part / f"{name}.png", (0, 1, 150))
    return root


def camvid(root):
    for part in ("train", "val", "test"):
        for number in (1, 2):
            put(root / part / f"{number}.png", data_trees.jpeg(size=(40, 30)))
            write_mask(root / f"{part}annot" / f"{number}.png", (0, 10, 11))
    return root


LAYOUTS = {
    "ADE20K": (ADE20K, ade20k, 150, [255, 0, 149], "object 1"),
    "VOCSegmentation": (VOCSegmentation, data_trees.voc, 21, [255, 0, 12], "background"),
    "CamVid": (CamVid, camvid, 11, [0, 10, 255], "sky"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_have_class_indices(name, tmp_path):
    kind, write, classes, values, first = LAYOUTS[name]
    data = kind(root=str(write(tmp_path)), **SMALL)
    assert data.num_classes == classes
    assert data.class_names[0] == first
    data.setup("fit")
    data.setup("test")
    assert data.counts == {"train": 2, "val": 2, "test": 2}
    image, mask = data.read(data.pairs("test")[0])
    assert image.shape == (3, 30, 40)
    assert set(mask.unique().tolist()) == set(values)
    if name != "VOCSegmentation":
        assert mask[::10, 0].tolist() == values


def test_a_value_above_the_classes_is_refused(tmp_path):
    ade20k(tmp_path)
    file = tmp_path / "ADEChallengeData2016/annotations/validation/ADE_validation_00000001.png"
    write_mask(file, (0, 1, 151))
    data = ADE20K(root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match=r"00000001\.png: 400 pixels with value 151"):
        data.read(data.pairs("val")[0])


def test_distorted_colors_keep_the_order_of_channels():
    """A sky stays blue: hue turns by at most a tenth, and channels are not exchanged."""
    torch.manual_seed(0)
    sky = torch.tensor([70, 70, 200], dtype=torch.uint8).reshape(3, 1, 1)
    drawn = torch.stack([distort_colors(sky).flatten() for _ in range(100)])
    assert bool((drawn.argmax(dim=1) == 2).all())
    unchanged = (drawn == sky.flatten()).all(dim=1).float().mean()
    assert 0 < float(unchanged) < 0.2  # 1 of 16 on average
    assert drawn.float().std(dim=0).min() > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_step_and_a_validation_run(name, tmp_path):
    root = LAYOUTS[name][1](tmp_path / "data")
    run_here(
        *("fit", "--model=smmix_pl.downstream.SemanticSegmentation", f"--data={name}"),
        *(f"--data.root={root}", "--data.image_size=32", "--data.num_workers=0"),
        *("--data.batch_size=2", "--model.backbone=vit_tiny_patch16_224", "--name=step"),
        "--model.backbone_args={patch_size: 8, embed_dim: 24, depth: 4, num_heads: 2}",
        *("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"),
        cwd=tmp_path,
    )
    with open(tmp_path / "runs/step/version_0/metrics.csv") as file:
        logged = {key: row[key] for row in csv.DictReader(file) for key in row if row[key]}
    assert float(logged["train/loss_segmentation"]) > 0
    assert 0 <= float(logged["val/miou"]) <= 1
