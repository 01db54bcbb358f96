"""Folders of small images."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image_folder(root: Path, classes=("ant", "bee", "cat"), per_class=4, size=40) -> Path:
    """Write class folders of small random JPEGs."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.JPEG")
    return root
