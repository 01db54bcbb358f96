"""Common corruptions (Hendrycks and Dietterich, 2019), for datasets without a corrupted copy.

These are the corruptions of ImageNet-C and CIFAR-C that need nothing but the image, with the
published constants and formulas (hendrycks/robustness, ImageNet-C/create_c). Glass and motion blur,
snow, frost, fog, and elastic transform are excluded. The published files are also JPEG-compressed
with quality 85, so results are close to those on ImageNet-C but not comparable.

Shapes: B batch, C channels, H and W pixels. Images are in [0, 1].
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from smmix_pl.robustness.blurs import defocus_blur, gaussian_blur, zoom_blur
from smmix_pl.robustness.patches import Generators, place_generator
from smmix_pl.robustness.recompression import jpeg_compression, pixelate

Constants = Literal["imagenet", "cifar"]


def corrupt(
    images: Tensor, name: str, severity: int, constants: Constants, seed: int, places: Sequence[int]
) -> Tensor:
    """Apply one corruption.

    Args:
        images: `(B, 3, H, W)` in [0, 1].
        name: A key of `SEVERITIES`.
        severity: 1 to 5.
        constants: `imagenet` for 224 x 224 pixels, or `cifar` for 32 x 32.
        seed: Seed of the noise.
        places: Index of each image in its dataset, which determines its noise.

    Returns:
        `(B, 3, H, W)`, multiples of 1 / 255, rounded down like the published code.
    """
    constant = SEVERITIES[name][constants][severity - 1]
    generators = [place_generator(seed, place) for place in places]
    corrupted = FUNCTIONS[name](images, constant, generators).clamp(0, 1)
    # The offset keeps float32 rounding from falling below an exact integer
    return (255 * corrupted + 1e-3).floor() / 255


def gaussian_noise(images: Tensor, deviation: float, generators: Generators) -> Tensor:
    """Add normal noise."""
    return images + deviation * _normal(images, generators)


def speckle_noise(images: Tensor, deviation: float, generators: Generators) -> Tensor:
    """Add normal noise proportional to the pixel value."""
    return images + deviation * images * _normal(images, generators)


def shot_noise(images: Tensor, photons: float, generators: Generators) -> Tensor:
    """Apply Poisson noise, with the given number of photons at white."""
    expected = (photons * images).cpu()
    pairs = zip(expected, generators, strict=True)
    return torch.stack([torch.poisson(x, generator=g) for x, g in pairs]).to(images) / photons


def impulse_noise(images: Tensor, amount: float, generators: Generators) -> Tensor:
    """Set a fraction of all values to 0 or 1, half each."""
    drawn = torch.stack([torch.rand(images.shape[1:], generator=g) for g in generators]).to(images)
    noisy = torch.where(drawn < amount / 2, 0.0, images)
    return torch.where(drawn >= 1 - amount / 2, 1.0, noisy)


def brightness(images: Tensor, added: float, _: Generators) -> Tensor:
    """Increase the HSV value, with unchanged hue and saturation."""
    value = images.amax(dim=1, keepdim=True)
    raised = (value + added).clamp(max=1)
    return torch.where(value > 0, images * raised / value.clamp(min=1e-6), raised)


def saturate(images: Tensor, linear: tuple[float, float], _: Generators) -> Tensor:
    """Map the HSV saturation linearly, with unchanged hue and value. Gray has the hue of red."""
    factor, added = linear
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    saturation = chroma / value.clamp(min=1e-6)
    wanted = (saturation * factor + added).clamp(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device).view(1, 3, 1, 1)
    below = torch.where(chroma > 0, (value - images) / chroma.clamp(min=1e-6), red)
    return value - wanted * value * below


def contrast(images: Tensor, factor: float, _: Generators) -> Tensor:
    """Scale the distance of each channel from its mean."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * factor + mean


def _normal(images: Tensor, generators: Generators) -> Tensor:
    return torch.stack([torch.randn(images.shape[1:], generator=g) for g in generators]).to(images)


FUNCTIONS: dict[str, Callable[[Tensor, Any, Generators], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "zoom_blur": zoom_blur,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "gaussian_blur": gaussian_blur,
    "saturate": saturate,
    "speckle_noise": speckle_noise,
}

SEVERITIES: dict[str, dict[str, list[Any]]] = {
    "gaussian_noise": {
        "imagenet": [0.08, 0.12, 0.18, 0.26, 0.38],
        "cifar": [0.04, 0.06, 0.08, 0.09, 0.10],
    },
    "shot_noise": {"imagenet": [60, 25, 12, 5, 3], "cifar": [500, 250, 100, 75, 50]},
    "impulse_noise": {
        "imagenet": [0.03, 0.06, 0.09, 0.17, 0.27],
        "cifar": [0.01, 0.02, 0.03, 0.05, 0.07],
    },
    "defocus_blur": {  # radius and sigma of the anti-aliasing
        "imagenet": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
        "cifar": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    },
    "zoom_blur": {  # largest zoom (excluded) and step
        "imagenet": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
        "cifar": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    },
    "brightness": {"imagenet": [0.1, 0.2, 0.3, 0.4, 0.5], "cifar": [0.05, 0.1, 0.15, 0.2, 0.3]},
    "contrast": {"imagenet": [0.4, 0.3, 0.2, 0.1, 0.05], "cifar": [0.75, 0.5, 0.4, 0.3, 0.15]},
    "pixelate": {
        "imagenet": [0.6, 0.5, 0.4, 0.3, 0.25],
        "cifar": [0.95, 0.9, 0.85, 0.75, 0.65],
    },
    "jpeg_compression": {"imagenet": [25, 18, 15, 10, 7], "cifar": [80, 65, 58, 50, 40]},
    "gaussian_blur": {"imagenet": [1, 2, 3, 4, 6], "cifar": [0.4, 0.6, 0.7, 0.8, 1]},
    "saturate": {
        "imagenet": [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
        "cifar": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    },
    "speckle_noise": {
        "imagenet": [0.15, 0.2, 0.35, 0.45, 0.6],
        "cifar": [0.06, 0.1, 0.12, 0.16, 0.2],
    },
}
"""The published constants of severities 1 to 5."""

REPORTED = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "zoom_blur",
            "brightness", "contrast", "pixelate", "jpeg_compression")  # fmt: skip
"""Nine of the 15 corruptions that papers report. The other three are the authors' extras."""
