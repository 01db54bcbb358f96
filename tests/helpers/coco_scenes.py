"""Generated images with objects in COCO's format."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = ((220, 40, 40), (40, 80, 230))
SIZES = ((64, 64), (48, 64), (64, 48), (56, 60))


def write_scenes(root: Path, sizes=SIZES, crowd: bool = True) -> Path:
    """Write gray images of the given (height, width): a red square, and in every second a blue one.

    The first image has a crowd at its right edge, and the last one has no object.
    """
    rng = np.random.default_rng(0)
    images, rows = [], []
    pixels = {}
    for number, (height, width) in enumerate(sizes, start=1):
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        )
        pixels[number] = rng.integers(90, 130, (height, width, 3), dtype=np.uint8)
        for category in range(0 if number == len(sizes) else 1 + number % 2):
            side = 20 + 2 * number
            left, top = (2, 3) if category == 0 else (width - side - 6, height - side - 4)
            pixels[number][top : top + side, left : left + side] = COLORS[category]
            right, bottom = left + side, top + side
            outline = [left, top, right, top, right, bottom, left, bottom]
            box = [left, top, side, side]
            rows.append(
                {"image_id": number, "category_id": 3 + 4 * category, "bbox": box}
                | {"segmentation": [outline], "area": side * side, "iscrowd": 0}
            )
    height, width = sizes[0]
    if crowd:  # the four columns at the right edge
        runs = {"size": [height, width], "counts": [height * (width - 4), height * 4]}
        rows.append(
            {"image_id": 1, "category_id": 3, "bbox": [width - 4, 0, 4, height]}
            | {"segmentation": runs, "area": 4 * height, "iscrowd": 1}
        )
    content = {
        "categories": [{"id": 7, "name": "blue one"}, {"id": 3, "name": "red one"}],
        "images": images,
        "annotations": [{"id": number} | row for number, row in enumerate(rows)],
    }
    (root / "annotations").mkdir(parents=True)
    for part in ("train2017", "val2017"):
        (root / part).mkdir()
        for number, image in pixels.items():
            Image.fromarray(image).save(root / part / f"{number}.png")
        (root / f"annotations/instances_{part}.json").write_text(json.dumps(content))
    return root


def change_annotation(root: Path, index: int = 0, part: str = "train2017", **fields) -> None:
    """Change the fields of an annotation of a split."""
    file = root / f"annotations/instances_{part}.json"
    content = json.loads(file.read_text())
    content["annotations"][index] |= fields
    file.write_text(json.dumps(content))
