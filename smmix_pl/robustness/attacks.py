"""White-box attacks with an L-infinity limit: FGSM and PGD.

Images are normalized. Steps and limits are in pixel values, 0 to 255.

Shapes: B batch, C channels, H and W pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.robustness.patches import place_generator

Model = Callable[[Tensor], Tensor]


class PixelScale(NamedTuple):
    """Pixel values in the units of normalized images, each `(C, 1, 1)`.

    Attributes:
        step: Difference between two consecutive pixel values.
        black: Pixel value 0.
        white: Pixel value 255.
    """

    step: Tensor
    black: Tensor
    white: Tensor


def pixel_scale(mean: Sequence[float], std: Sequence[float], like: Tensor) -> PixelScale:
    """Return the scale of images normalized with these means and standard deviations."""
    shift, spread = (like.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return PixelScale(1 / (255 * spread), -shift / spread, (1 - shift) / spread)


def fgsm(model: Model, images: Tensor, classes: Tensor, eps: float, scale: PixelScale) -> Tensor:
    """Attack with the fast gradient sign method (Goodfellow et al., 2015): one step of `eps`."""
    ascended = images + eps * scale.step * ascent(model, images, classes)
    return ascended.clamp(scale.black, scale.white)


def pgd(
    model: Model,
    images: Tensor,
    classes: Tensor,
    eps: float,
    scale: PixelScale,
    start: Tensor,
    step: float = 2.0,
    steps: int = 10,
) -> Tensor:
    """Attack with projected gradient descent (Madry et al., 2018): several signed steps.

    Args:
        model: Differentiable function from images to logits.
        images: Normalized images, `(B, C, H, W)`.
        classes: True classes, `(B,)`.
        eps: Maximum distance from the images in pixel values, per channel.
        scale: Scale of the images; see `pixel_scale`.
        start: Starting point as a fraction of `eps`, in [-1, 1], `(B, C, H, W)`; see
            `random_start`.
        step: Pixel values per step.
        steps: Number of steps.

    Returns:
        Attacked images, `(B, C, H, W)`.
    """
    limit = eps * scale.step
    low = (images - limit).maximum(scale.black)
    high = (images + limit).minimum(scale.white)
    attacked = (images + limit * start).clamp(low, high)
    for _ in range(steps):
        attacked = attacked + step * scale.step * ascent(model, attacked, classes)
        attacked = attacked.clamp(low, high)
    return attacked


def random_start(images: Tensor, seed: int, places: Sequence[int]) -> Tensor:
    """Draw uniform values in [-1, 1] in the shape of the images, by position in the dataset."""
    shape = images.shape[1:]
    drawn = [torch.rand(shape, generator=place_generator(seed, place)) for place in places]
    return 2 * torch.stack(drawn).to(images) - 1


def ascent(model: Model, images: Tensor, classes: Tensor) -> Tensor:
    """Return the sign of the cross entropy's gradient at each pixel."""
    # In float32, the softmax of a confident prediction rounds to 1, which corrupts the gradient.
    # Apple's GPUs have no float64.
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    # Tests run in inference mode, whose tensors cannot require gradients: hence the clones
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.clone().requires_grad_()
        loss = F.cross_entropy(model(leaf).to(exact), classes.clone(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient.sign()
