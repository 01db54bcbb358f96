"""FMix: masks from thresholded low-frequency noise (Harris et al., 2020)."""

import math

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask


class FMix(Mixer):
    """Paste the source image where random low-frequency noise is lowest; one mask per batch.

    Follows the authors' code (ecs-vlc/FMix, `fmix.py`) with two deviations. First, the noise is the
    paper's: Gaussian real and imaginary parts at each frequency. The code takes the first two rows
    of the spectrum for these parts, which leaves only two frequencies along the width. Second,
    labels follow the covered area. The code keeps lam, although it rounds the area up or down at
    random.

    Args:
        alpha: The target fraction is lam ~ Beta(alpha, alpha). Above 0.
        decay: Amplitudes fall with frequency f as f^-decay. Above 0.
    """

    def __init__(self, alpha: float = 1.0, decay: float = 3.0) -> None:
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")
        self.decay = positive("model.mixer.decay", decay, "The paper uses 3")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`."""
        height, width = images.shape[-2:]
        lam = rng.beta(self.alpha, self.alpha)
        noise = low_frequency_image(height, width, self.decay, rng)
        target_pixels = lam * noise.size
        kept = math.ceil(target_pixels) if rng.random() > 0.5 else math.floor(target_pixels)
        mask = torch.from_numpy(lowest_pixels(noise, noise.size - kept))[None]
        return mix_by_mask(images, labels, mask.to(images.device, non_blocking=True))


def low_frequency_image(
    height: int, width: int, decay: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw Gaussian noise whose spectrum falls as f^-decay, flat below 1 / the longer side."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -decay
    real, imaginary = rng.standard_normal((2, *frequency.shape))
    return np.fft.irfft2(amplitude * (real + 1j * imaginary), (height, width))


def lowest_pixels(image: np.ndarray, count: int) -> np.ndarray:
    """Return a mask of the `count` pixels with the lowest values, in the shape of the image."""
    mask = np.zeros(image.size, dtype=bool)
    mask[np.argsort(image, axis=None, kind="stable")[:count]] = True
    return mask.reshape(image.shape)
