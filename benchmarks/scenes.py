"""Scenes of encoded cells: a photograph as the object at a known place in another photograph.

A scene is a grid of square cells, and a frozen model encodes each cell on its own. Pasting pixels
along the cells and encoding them then equals pasting their encodings. So each photograph is encoded
once, and scenes are assembled from encodings.

B batch, D width of the model, G cells per side of a scene, k of an object, b of a background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from smmix_pl import Backbone
from smmix_pl.data.transforms import normalize


@dataclass(frozen=True)
class Scenes:
    """Source of scenes.

    Attributes:
        objects: Encoded objects, `(n, D, k, k)`.
        classes: Their class indices, `(n,)`.
        backgrounds: Encoded backgrounds, `(m, D, b, b)`.
        grid: G, at most b.
    """

    objects: Tensor
    classes: Tensor
    backgrounds: Tensor
    grid: int

    def draw(self, chosen: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Place objects on random crops of random backgrounds.

        Args:
            chosen: Indices of the objects, `(B,)`.
            rng: Source of backgrounds and places.

        Returns:
            Scenes, `(B, D, G, G)`, and 1.0 where their objects are, `(B, G, G)`.
        """
        side, grid = self.objects.shape[-1], self.grid
        scenes = self._crops(len(chosen), rng)
        masks = torch.zeros(len(chosen), grid, grid)
        corners = rng.integers(grid - side, size=(len(chosen), 2), endpoint=True).tolist()
        for scene, mask, index, (top, left) in zip(scenes, masks, chosen, corners, strict=True):
            place = slice(top, top + side), slice(left, left + side)
            scene[:, *place] = self.objects[index]
            mask[place] = 1
        return scenes, masks

    def _crops(self, count: int, rng: np.random.Generator) -> Tensor:
        """Crop random backgrounds at random, `(count, D, G, G)`."""
        grid, side = self.grid, self.backgrounds.shape[-1]
        numbers = rng.integers(len(self.backgrounds), size=count).tolist()
        corners = rng.integers(side - grid, size=(count, 2), endpoint=True).tolist()
        crops = [
            self.backgrounds[number, :, top : top + grid, left : left + grid]
            for number, (top, left) in zip(numbers, corners, strict=True)
        ]
        return torch.stack(crops)


@torch.no_grad()
def encode(files: Sequence[Path], cells: int, model: Backbone, pixels: int) -> Tensor:
    """Encode the cells of the central square of each photograph, `(n, D, cells, cells)`.

    Args:
        files: Photographs.
        cells: Cells per side.
        model: A ViT with a class token in eval mode, for images of one cell.
        pixels: Side of a cell.
    """
    encoded = []
    for file in files:
        with Image.open(file) as photograph:
            picture = photograph.convert("RGB")
        square = ImageOps.fit(picture, (cells * pixels,) * 2, Image.Resampling.BICUBIC)
        image = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        tiles = image.unfold(2, pixels, pixels).unfold(3, pixels, pixels)  # (1, 3, k, k, p, p)
        batch = normalize(
            tiles[0].permute(1, 2, 0, 3, 4).flatten(0, 1),
            IMAGENET_DEFAULT_MEAN,
            IMAGENET_DEFAULT_STD,
        )
        features = model.model.forward_head(model.model.forward_features(batch), pre_logits=True)
        encoded.append(features.T.unflatten(1, (cells, cells)))
    return torch.stack(encoded)
