"""FMix: masks from thresholded low-frequency noise (Harris et al., 2020)."""

import math

import numpy as np
import torch
from torch import Tensor

from smmix_pl.checks import positive
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer
from smmix_pl.mixing.masks import mix_by_mask


class FMix(Mixer):
    """Paste the source image where a random low-frequency image is dark; one mask for the batch.

    As in the authors' code (ecs-vlc/FMix, `fmix.py`), but for two things. The noise is the paper's,
    a Gaussian real and imaginary part at each frequency; the code indexes the first two rows of the
    spectrum as those parts, which leaves its masks two frequencies along the width. And labels
    follow the area that is covered, which the code rounds lam to, up or down by chance.

    Args:
        alpha: The target image keeps a share lam ~ Beta(alpha, alpha); above 0.
        decay: Amplitudes fall with frequency f as f^-decay; above 0.
    """

    def __init__(self, alpha: float = 1.0, decay: float = 3.0) -> None:
        self.alpha = positive("FMix's alpha", alpha, "The paper uses 1")
        self.decay = positive("FMix's decay", decay, "The paper uses 3")

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch; see `Mixer`."""
        height, width = images.shape[-2:]
        lam = rng.beta(self.alpha, self.alpha)
        noise = low_frequency_image(height, width, self.decay, rng)
        share = lam * noise.size
        kept = math.ceil(share) if rng.random() > 0.5 else math.floor(share)
        mask = torch.from_numpy(darkest(noise, noise.size - kept))[None]
        return mix_by_mask(images, labels, mask.to(images.device, non_blocking=True))


def low_frequency_image(
    height: int, width: int, decay: float, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian noise whose spectrum falls as f^-decay, flat below the longer side's frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -decay
    real, imaginary = rng.standard_normal((2, *frequency.shape))
    return np.fft.irfft2(amplitude * (real + 1j * imaginary), (height, width))


def darkest(image: np.ndarray, pixels: int) -> np.ndarray:
    """A mask of the given number of pixels with the lowest values, shaped as the image."""
    mask = np.zeros(image.size, dtype=bool)
    mask[np.argsort(image, axis=None, kind="stable")[:pixels]] = True
    return mask.reshape(image.shape)
