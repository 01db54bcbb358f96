"""AutoAttack by the authors' code, the optional package pyautoattack.

Shapes: B batch, C channels, H and W pixels, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smmix_pl.errors import InputError
from smmix_pl.robustness.attacks import PixelScale

MOST_PASSES = 7900
"""Forward passes for an image that withstands all attacks, rounded up: 5,000 are Square's."""
FEWEST_CLASSES = 4
"""The DLR loss divides by the difference of the highest logits and the third and fourth ones."""
TARGETS = 9
"""Classes that each targeted attack tries in the standard version, where there are as many."""


def require_library() -> Any:
    """Return the class that runs the attacks.

    Raises:
        InputError: The package is not installed.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise InputError(
            f"trainer.callbacks: AutoAttack needs pyautoattack ({error}). Run `pip install "
            "'smmix-pl[attacks]'`, or remove the callback."
        ) from error
    return AutoAttack


def auto_attack(
    model: nn.Module, images: Tensor, classes: Tensor, eps: float, scale: PixelScale, seed: int
) -> Tensor:
    """Attack with the standard version of AutoAttack (Croce and Hein, 2020), L-infinity.

    Args:
        model: Differentiable module in eval mode, from images to logits `(B, K)`.
        images: Normalized images, `(B, C, H, W)`.
        classes: True classes, `(B,)`.
        eps: Maximum distance from the images in pixel values, per channel.
        scale: Scale of the images; see `pixel_scale`.
        seed: Seed of the random starts and of Square. The global generators are left as they are.

    Returns:
        Attacked images, `(B, C, H, W)`; unchanged where no attack succeeded.

    Raises:
        InputError: The package is not installed, or there are too few classes.
    """
    devices = [images.device] if images.device.type == "cuda" else []
    # Tests run in inference mode, whose tensors cannot be part of a graph. Outside it, results of
    # an operation can: hence the clones.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(devices),
        _constant_parameters(model),
    ):
        white, black = 255 * scale.step, scale.black.clone()

        def normalized(pixels: Tensor) -> Tensor:
            return (white * pixels + black).to(images.dtype)

        def logits(pixels: Tensor) -> Tensor:
            return model(normalized(pixels)).float()

        pixels = ((images.clone() - black) / white).float().clamp(0, 1)
        number = int(logits(pixels[:1]).isfinite().sum())
        if number < FEWEST_CLASSES:
            raise InputError(
                f"trainer.callbacks: AutoAttack needs at least {FEWEST_CLASSES} classes, the data "
                f"have {number}. Use PGD."
            )
        attack = require_library()(logits, eps=eps / 255, seed=seed, device=images.device)
        for targeted in (attack.apgd_targeted, attack.fab):
            targeted.n_target_classes = min(TARGETS, number - 1)
        attacked, _ = attack.run_standard_evaluation(
            pixels, classes.clone(), batch_size=len(images)
        )
        changed = (attacked != pixels).flatten(1).any(dim=1).view(-1, 1, 1, 1)
        return torch.where(changed, normalized(attacked), images)


@contextmanager
def _constant_parameters(model: nn.Module) -> Iterator[None]:
    """Compute no gradients of the parameters; FAB would add them up in `.grad`."""
    trained = [one for one in model.parameters() if one.requires_grad]
    try:
        for one in trained:
            one.requires_grad_(False)
        yield
    finally:
        for one in trained:
            one.requires_grad_(True)
