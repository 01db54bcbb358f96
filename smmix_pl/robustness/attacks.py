"""White-box attacks within a few pixel values: FGSM and PGD.

B batch, C channels, H W pixels. Images are normalized; steps and limits are in pixel values of 255.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.robustness.patches import place_generator

Model = Callable[[Tensor], Tensor]


class PixelScale(NamedTuple):
    """Pixel values in the units of normalized images; each ``(C, 1, 1)``.

    Attributes:
        step: The size of one of 255 steps.
        black: Pixel value 0.
        white: Pixel value 255.
    """

    step: Tensor
    black: Tensor
    white: Tensor


def pixel_scale(mean: Sequence[float], std: Sequence[float], like: Tensor) -> PixelScale:
    """The scale of images that were normalized with these means and deviations."""
    shift, spread = (like.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return PixelScale(1 / (255 * spread), -shift / spread, (1 - shift) / spread)


def fgsm(model: Model, images: Tensor, classes: Tensor, eps: float, scale: PixelScale) -> Tensor:
    """The fast gradient sign method (Goodfellow et al., 2015): one step of ``eps`` pixel values."""
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
    """Projected gradient descent (Madry et al., 2018): the last of several signed steps.

    Args:
        model: From images to logits; differentiable.
        images: ``(B, C, H, W)``, normalized.
        classes: True classes, ``(B,)``.
        eps: The result is at most so many pixel values away from the images, in each channel.
        scale: Of the images.
        start: Where to begin within the limit, in [-1, 1], shape of the images; see `random_start`.
        step: Pixel values per step.
        steps: How many.
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
    """Uniform in [-1, 1], the shape of the images, each by its place in the data set."""
    shape = images.shape[1:]
    drawn = [torch.rand(shape, generator=place_generator(seed, place)) for place in places]
    return 2 * torch.stack(drawn).to(images) - 1


def ascent(model: Model, images: Tensor, classes: Tensor) -> Tensor:
    """The sign of the cross entropy's gradient at each pixel."""
    # in float32 the softmax of a sure prediction is 1, and what is left of the gradient points
    # elsewhere; Apple's GPUs have no float64
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    # a test runs in inference mode, whose tensors no gradient may touch: hence the clones
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.clone().requires_grad_()
        loss = F.cross_entropy(model(leaf).to(exact), classes.clone(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient.sign()
