"""Training images that live on the device, decoded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smmix_pl.data.drawn_operations import Drawn
from smmix_pl.data.io.cache import check_memory
from smmix_pl.data.io.images import BadImage
from smmix_pl.data.loaders import CatchBadImages
from smmix_pl.errors import InputError


class DeviceCache(Dataset[tuple[Drawn, int]]):
    """Indices of cached images with the crop and the operations drawn for each.

    Args:
        images: Map-style dataset of (uint8 `(3, H, W)`, class index), decoded here.
        draw: Maps an index and (H, W) to what is drawn for an image.
        workers: Number of processes that decode.

    Raises:
        InputError: The images differ in size, all are bad, or they take more than half of the
            machine's memory.
    """

    def __init__(
        self, images: Dataset[Any], draw: Callable[[int, tuple[int, int]], Drawn], workers: int
    ) -> None:
        self.draw = draw
        self.labels: list[int] = []
        self.bad: dict[int, BadImage] = {}
        count = len(images)  # type: ignore[arg-type]
        pixels: Tensor | None = None
        decoded = DataLoader(CatchBadImages(images), batch_size=None, num_workers=workers)
        for index, item in enumerate(decoded):
            if isinstance(item, BadImage):
                self.bad[index] = item
                self.labels.append(-1)
                continue
            image, label = item
            if pixels is None:
                check_memory(count * image.numel(), "device")
                pixels = torch.zeros(count, *image.shape, dtype=torch.uint8)
            if image.shape != pixels.shape[1:]:
                sizes = [f"{shape[2]} x {shape[1]}" for shape in (pixels[0].shape, image.shape)]
                raise InputError(
                    f"data.cache=device: images have different sizes, such as {sizes[0]} and "
                    f"{sizes[1]}. Set data.cache=host."
                )
            pixels[index] = image
            self.labels.append(int(label))
        if pixels is None:
            raise next(iter(self.bad.values()))
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Drawn, int]:
        """Draw a crop and operations for one image.

        Raises:
            BadImage: The image could not be read.
        """
        if index in self.bad:
            raise self.bad[index]
        height, width = self.pixels.shape[2:]
        return self.draw(index, (height, width)), self.labels[index]

    def take(self, indices: Tensor) -> Tensor:
        """Return images by their indices, on the device of the indices, `(B, 3, H, W)`."""
        self.pixels = self.pixels.to(indices.device)
        return self.pixels[indices]
