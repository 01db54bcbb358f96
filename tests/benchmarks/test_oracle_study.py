"""benchmarks/oracle_study.py on generated photographs, with a small encoder."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_trees import class_tree
from PIL import Image

from smmix_pl import Backbone

ROOT = Path(__file__).parents[2]
CELL = 16


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def photograph(file, cells):
    pixels = np.random.default_rng(cells).integers(0, 256, (cells * CELL,) * 2 + (3,), np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


def test_pasting_encodings_equals_encoding_pasted_pixels(tmp_path, benchmarks):
    scenes = benchmarks("scenes")
    model = Backbone("vit_tiny_patch16_224", 2, CELL).eval()
    thing = photograph(tmp_path / "object.png", 2)
    scene = photograph(tmp_path / "background.png", 3)
    encoded = {
        name: scenes.encode([tmp_path / f"{name}.png"], cells, model, CELL)
        for name, cells in (("object", 2), ("background", 3))
    }
    source = scenes.Scenes(encoded["object"], torch.tensor([1]), encoded["background"], grid=3)
    drawn, masks = source.draw(torch.tensor([0]), np.random.default_rng(0))
    top, left = (CELL * int(corner) for corner in masks[0].nonzero()[0])
    scene[top : top + 2 * CELL, left : left + 2 * CELL] = thing
    Image.fromarray(scene).save(tmp_path / "pasted.png")
    expected = scenes.encode([tmp_path / "pasted.png"], 3, model, CELL)
    assert masks.sum() == 4
    assert torch.allclose(drawn, expected, atol=1e-5)
    assert not torch.allclose(drawn, encoded["background"], atol=1e-2)


@pytest.mark.slow
def test_the_study_doses_what_a_guide_knows(tmp_path, benchmarks, monkeypatch, capsys):
    for part, count in (("train", 5), ("val", 1)):
        class_tree(tmp_path / "objects" / part, ["ant", "bee"], count)
    class_tree(tmp_path / "backgrounds", ["place"], 4)
    study = benchmarks("oracle_study")
    monkeypatch.setattr(study, "CELL", CELL)
    monkeypatch.setattr(study, "VIT", study.VIT | {"embed_dim": 16, "depth": 2, "num_heads": 2})
    folders = ("--objects", tmp_path / "objects", "--backgrounds", tmp_path / "backgrounds")
    sizes = ("--steps", "2", "--batch", "4", "--shots", "2", "--seeds", "0", "1")

    def rows(*words):
        command = ("", "vit_tiny_patch16_224", *folders, *sizes, "--out", tmp_path / "out", *words)
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        study.main()
        lines = capsys.readouterr().out.splitlines()[2:]
        return {cells[1].strip(): cells[2:] for cells in (line.split("|") for line in lines)}

    table = rows()
    assert list(table) == list(study.GUIDES)
    pasted, hidden = (
        {guide: float(cells[column]) for guide, cells in table.items() if cells[column].strip()}
        for column in (0, 1)
    )
    assert pasted["oracle"] == hidden["anti-oracle"] == 100
    # an object in the middle touches every window of its size
    assert hidden["oracle"] == pasted["anti-oracle"] < pasted["random"] == hidden["random"] < 50
    assert table["random"][4].strip() == "+0.00 ± 0.00"
    for file in (tmp_path / "out").glob("*_[01].json"):
        file.write_text('{"top1": 50.0, "nll": 1.0}')
    assert rows("--guides", "none", "oracle")["oracle"][2].strip() == "50.00"  # not repeated
