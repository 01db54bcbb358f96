"""PuzzleMix: a saliency-guided mask by graph cut, and transport (Kim et al., ICML 2020).

B batch, C channels, H W pixels, N blocks per side, L levels of the mask.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smmix_pl.checks import in_range, positive
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import GuideModel, Mixed, Mixer, blend_labels

BLOCKS = (2, 4, 8, 16)
"""Numbers of blocks per side that are drawn from."""
EPS = 1e-8


class PuzzleMix(Mixer):
    """Keep the salient blocks of both images, and move them so that they do not cover each other.

    Each batch draws a number of blocks per side, 2, 4, 8, or 16, and a mixing ratio. For each pair,
    a mask is optimized over the blocks: it keeps saliency, follows the mixing ratio, is smooth, and
    changes where the images do not differ. Saliency is the norm of the loss's gradient at each
    pixel, from a forward and a backward pass over the unmixed images. Then, each image moves its
    salient blocks into its part of the mask. Labels follow the mask.

    As in the authors' code (snu-mllab/PuzzleMix, `mixup.py`), without its adversarial noise and its
    loss on unmixed images. It minimizes the energy of the mask by alpha-beta swaps; here, one cut
    finds the minimum itself.

    Args:
        alpha: The target image keeps about lam ~ Beta(alpha, alpha) of the mask. Above 0.
        levels: Number of values of the mask, evenly spaced from 0 to 1. At least 2.
        beta: Weight of smoothness.
        gamma: Weight of the difference of the images at the borders of blocks, in [0, 1].
        eta: Weight of the mixing ratio.
        neighborhood: Largest side of the squares, in pixels, whose means are compared at borders.
        transport: Move blocks; otherwise, images stay in place.
        transport_cost: Cost of moving a block, relative to its saliency.
        transport_size: Largest side of the moved squares, in pixels, which divides the side of a
            block; `null` moves complete blocks. The authors use 4 for CIFAR.
        std: Channel standard deviations of the normalization (`data.std`).
    """

    def __init__(
        self,
        alpha: float = 1.0,
        levels: int = 3,
        beta: float = 1.2,
        gamma: float = 0.5,
        eta: float = 0.2,
        neighborhood: int = 4,
        transport: bool = True,
        transport_cost: float = 0.8,
        transport_size: int | None = None,
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.alpha = positive("model.mixer.alpha", alpha, "The paper uses 1")
        in_range("model.mixer.levels", levels, 2, 16, hint="The paper uses 3.")
        in_range("model.mixer.beta", beta, 0, hint="The paper uses 1.2.")
        in_range("model.mixer.gamma", gamma, 0, 1, hint="The paper uses 0.5.")
        in_range("model.mixer.eta", eta, 0, hint="The paper uses 0.2.")
        in_range("model.mixer.neighborhood", neighborhood, 1, hint="The paper uses 4.")
        in_range("model.mixer.transport_cost", transport_cost, 0, hint="The paper uses 0.8.")
        if transport_size is not None:
            in_range("model.mixer.transport_size", transport_size, 1)
        self.levels, self.beta, self.gamma, self.eta = levels, beta, gamma, eta
        self.neighborhood = neighborhood
        self.transport = transport
        self.transport_cost = transport_cost
        self.transport_size = transport_size
        self.std = tuple(std)

    def __call__(
        self, images: Tensor, labels: Tensor, model: GuideModel, rng: np.random.Generator
    ) -> Mixed:
        """Mix one batch. See `Mixer`.

        Raises:
            InputError: An odd side of the images, which cannot be cut into blocks.
        """
        size = images.shape[2:]
        fitting = [blocks for blocks in BLOCKS if not (size[0] % blocks or size[1] % blocks)]
        if not fitting:
            raise InputError(
                f"data.image_size={list(size)}: PuzzleMix cuts images into {BLOCKS[0]} x "
                f"{BLOCKS[0]} blocks or more. Use even sides."
            )
        blocks = fitting[rng.integers(len(fitting))]
        lam = rng.beta(self.alpha, self.alpha)
        gradient = model.input_gradient(images, labels)
        saliency = gradient.float().square().mean(dim=1).sqrt()
        return self.mix(images, labels, saliency, self.mask(images, saliency, blocks, lam))

    def mix(self, images: Tensor, labels: Tensor, saliency: Tensor, mask: Tensor) -> Mixed:
        """Mix a batch by a given mask.

        Args:
            images: `(B, C, H, W)`.
            labels: Soft labels, `(B, K)`.
            saliency: `(B, H, W)` float32, non-negative.
            mask: Fraction of the target image, `(B, N, N)` float32; N divides H and W.
        """
        target, source = images, images.flip(0)
        if self.transport:
            parts = mask.shape[1]
            block = math.gcd(images.shape[2] // parts, images.shape[3] // parts)
            if self.transport_size is not None and self.transport_size < block:
                parts *= block // _largest_divisor(block, self.transport_size)
            fine = F.interpolate(mask[:, None], parts)[:, 0]
            shares = _shares(saliency, parts)
            target = moved(target, shares, fine, self.transport_cost)
            source = moved(source, shares.flip(0), 1 - fine, self.transport_cost)
        pixels = F.interpolate(mask[:, None], images.shape[2:]).to(images.dtype)
        mixed = pixels * target + (1 - pixels) * source
        if len(images) % 2:  # the middle image is its own source
            mixed[len(images) // 2] = images[len(images) // 2]
        ratio = mask.mean(dim=(1, 2)).unsqueeze(1)
        return Mixed(mixed, blend_labels(labels, ratio), ratio)

    def mask(self, images: Tensor, saliency: Tensor, blocks: int, lam: float) -> Tensor:
        """Return the mask of least energy, `(B, N, N)` float32.

        Args:
            images: `(B, C, H, W)`.
            saliency: `(B, H, W)` float32, non-negative.
            blocks: Number of blocks per side, N; divides H and W.
            lam: Mixing ratio.
        """
        from smmix_pl.mixing.grid_cut import cheapest_levels  # other mixers do not need SciPy

        unary, down, across = self.energy(images, saliency, blocks, lam)
        lost = cheapest_levels(unary, down, across)
        return torch.from_numpy(1 - lost / (self.levels - 1)).float().to(images.device)

    def energy(
        self, images: Tensor, saliency: Tensor, blocks: int, lam: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the costs of masks as integers, as `cheapest_levels` takes them.

        Level l of a block leaves l / (L - 1) to the source image.
        """
        lost_target = _shares(saliency, blocks)
        lost_source = lost_target.flip(0)
        beta = self.beta / blocks / 16
        weights = []
        for axis in (1, 2):
            # difference at each border, by what is above (left) and below (right)
            differences = self._border_differences(images, blocks, axis)
            both_target, target_source, source_target, both_source = beta * self.gamma * differences
            before, after = (slice(None, -1), slice(1, None))
            for part, kept, given in (
                (before, target_source + both_target, source_target + both_source),
                (after, source_target + both_target, target_source + both_source),
            ):
                index = (slice(None), part) if axis == 1 else (slice(None), slice(None), part)
                lost_source[index] += kept / 2
                lost_target[index] += given / 2
            change = target_source + source_target - both_target - both_source
            weights.append(change / 2 + beta)
        scale = 1000 * blocks**2
        given = torch.linspace(0, 1, self.levels, device=images.device)
        unary = (1 - given) * lost_source[..., None] + given * lost_target[..., None]
        prior = self.eta / blocks**2 * self._surprise(lam)
        costs = unary + torch.from_numpy(prior).to(unary)
        down, across = ((scale * one).long().cpu().numpy() for one in weights)
        return (scale * costs).long().cpu().numpy(), down, across

    def _surprise(self, lam: float) -> np.ndarray:
        """Return minus the logarithms of the binomial probabilities of all levels, `(L,)`."""
        steps = self.levels - 1
        ways = [
            math.comb(steps, level) * lam ** (steps - level) * (1 - lam) ** level
            for level in range(self.levels)
        ]
        return -np.log(np.array(ways) + EPS)

    def _border_differences(self, images: Tensor, blocks: int, axis: int) -> Tensor:
        """Return the mean difference of pixel values where blocks meet, for all four cases.

        Args:
            images: `(B, C, H, W)`.
            blocks: Number of blocks per side.
            axis: 1 for borders of a block and the next one below, 2 to the right.

        Returns:
            `(4, B, N - 1, N)` or `(4, B, N, N - 1)`: both blocks from the target; the first from
            the target; the second from the target; both from the source.
        """
        block = images.shape[2] // blocks, images.shape[3] // blocks
        side = _largest_divisor(math.gcd(*block), self.neighborhood)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        means = F.avg_pool2d(images.float() * std, side)
        if axis == 2:
            means, block = means.transpose(2, 3), block[::-1]
        across, along = block[0] // side, block[1] // side
        last, first = means[:, :, across - 1 : -1 : across], means[:, :, across::across]
        cases = [
            (upper - lower).abs().mean(dim=1).unflatten(2, (blocks, along)).mean(dim=3)
            for upper in (last, last.flip(0))
            for lower in (first, first.flip(0))
        ]
        found = torch.stack(cases)
        return found if axis == 1 else found.transpose(2, 3)


def moved(images: Tensor, saliency: Tensor, mask: Tensor, cost: float) -> Tensor:
    """Move the blocks of each image to where the mask is above 0, at the least cost.

    A block gains its saliency there, and pays the squared distance, relative to the side of the
    grid. Each block chooses its best place; of several for one place, the best stays, and the
    others choose again after the place has become more expensive for them, N times in all. A place
    that no block has chosen in the end is 0.

    Args:
        images: `(B, C, H, W)`.
        saliency: Fraction of the image's saliency in each block, `(B, N, N)`.
        mask: `(B, N, N)` in [0, 1].
        cost: Weight of distances.
    """
    parts = mask.shape[1]
    line = torch.arange(parts, device=images.device)
    places = torch.cartesian_prod(line, line).float()
    squares = (places[:, None] - places).square().sum(dim=2) / (parts - 1) ** 2
    wanted = (mask > 0).float().flatten(1)
    costs = cost * squares - saliency.flatten(1)[:, :, None] * wanted[:, None]
    for _ in range(parts):
        best = costs.argmin(dim=2, keepdim=True)
        chosen = torch.zeros_like(costs).scatter_(2, best, 1.0)
        winner = (chosen * costs).argmin(dim=1, keepdim=True)
        kept = torch.zeros_like(costs).scatter_(1, winner, 1.0) * chosen
        costs = costs + (1 - kept) * chosen
    sides = parts, images.shape[2] // parts, parts, images.shape[3] // parts
    patches = images.reshape(*images.shape[:2], *sides).transpose(3, 4).flatten(2, 3)
    rows = winner.view(len(images), 1, -1, 1, 1).expand_as(patches)
    filled = kept.sum(dim=1).view(len(images), 1, -1, 1, 1).to(images.dtype)
    arranged = (patches.gather(2, rows) * filled).unflatten(2, (parts, parts))
    return arranged.transpose(3, 4).reshape(images.shape)


def _shares(saliency: Tensor, blocks: int) -> Tensor:
    """Return the fraction of each image's saliency in each block, `(B, N, N)`."""
    found = F.adaptive_avg_pool2d(saliency[:, None], blocks)[:, 0]
    total = found.sum(dim=(1, 2), keepdim=True)
    return torch.where(total > 0, found / total, 1 / blocks**2)


def _largest_divisor(number: int, limit: int) -> int:
    return max(one for one in range(1, min(number, limit) + 1) if number % one == 0)
