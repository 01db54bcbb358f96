"""benchmarks/guide_quality.py on generated photographs, whose objects are known."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SIDE = 64
CORNER = 32
"""Each object is the upper left quarter: 2 x 2 of the 4 x 4 tokens of a ViT."""


@pytest.fixture
def photographs(tmp_path):
    """Four images, with the same objects as masks and as COCO annotations."""
    rng = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "square"}]}
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[:CORNER, :CORNER] = 1
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(4):
        photo = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(photo).save(tmp_path / f"images/{index}.jpg")
        Image.fromarray(mask).save(tmp_path / f"masks/{index}.png")
        image = {"id": index, "file_name": f"{index}.jpg", "width": SIDE, "height": SIDE}
        last = CORNER - 1
        large = {
            "image_id": index,
            "category_id": 1,
            "area": CORNER**2,
            "bbox": [0, 0, last, last],
            # two as polygons, two as boxes
            "segmentation": [[0, 0, last, 0, last, last, 0, last]] if index % 2 else [],
        }
        small = large | {"area": 4, "bbox": [50, 50, 2, 2], "segmentation": []}
        crowd = small | {"area": 9999, "iscrowd": 1}
        content["images"].append(image)
        content["annotations"] += [small, large, crowd]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def measured(photographs, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    program = importlib.import_module("guide_quality")

    def run(*words):
        options = ["--images", str(photographs / "images"), "--size", str(SIDE), "--draws", "1"]
        out = ["--out", str(photographs / "out")]
        monkeypatch.setattr(sys, "argv", ["", "vit_tiny_patch16_224", *options, *out, *words])
        program.main()
        rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()]
        return {row[0].strip(): row[1:] for row in rows if len(row) > 1}

    return run


@pytest.mark.slow
def test_quality_of_windows_with_a_known_answer(photographs, measured):
    from_masks = measured("--masks", str(photographs / "masks"), "--sides", "2")
    from_file = measured("--annotations", str(photographs / "instances.json"), "--sides", "2")
    assert from_masks == from_file
    assert (photographs / "out/guide_quality.png").is_file()
    # A window of 2 x 2 tokens may lie in nine places, and covers 1, 1/2, 1/2, or 1/4 of the object
    random, best, cutmix, guided, unguided = (
        [float(cell) for cell in from_masks[row] if cell.strip()]
        for row in (
            *("random windows", "the object itself", "CutMix"),
            *("SMMix, the object itself", "SMMix, random regions"),
        )
    )
    assert random[:2] == [0.25, 0.25]
    assert best == [1, 0, 0.25]  # two whole objects are visible, lam is 3/4
    assert cutmix[1] == cutmix[2]  # objects at the same place
    assert guided[1] > unguided[1]
    assert guided[2] < unguided[2]


def test_images_without_a_suitable_object_are_an_error(photographs, measured, capsys):
    for mask in (photographs / "masks").iterdir():
        Image.new("L", (SIDE, SIDE), 255).save(mask)
    with pytest.raises(SystemExit) as stop:
        measured("--masks", str(photographs / "masks"))
    assert stop.value.code == 2
    assert "--images" in capsys.readouterr().err
