"""Temperature scaling (Guo et al., 2017) in one pass and with bounded memory."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from smmix_pl.metrics.reliability import Reliability, equal_width_bin, reliability

TEMPERATURES = torch.logspace(-3, 3, steps=97, base=2.0, dtype=torch.float64)
"""1/8 to 8 in steps of 4.4%: the likelihood is flat around its best temperature."""


class Scaled(NamedTuple):
    """Result of scaling each half of the images by the temperature fitted on the other half.

    Attributes:
        temperature: Mean of the two fitted temperatures.
        reliability: Reliability after scaling, over both halves.
        nll: Negative log-likelihood after scaling, over both halves.
    """

    temperature: Tensor
    reliability: Reliability
    nll: Tensor


class TemperatureScan(Metric):
    """Evaluates a grid of temperatures on two halves of the images.

    Test-time cross-validation (Ashukha et al., 2020): each half is scaled by the temperature with
    the highest likelihood on the other half. Every temperature of the grid is evaluated on each
    batch, so no logits are kept. torchmetrics has no such metric.

    Args:
        n_bins: Number of equal-width bins of the reliability diagram.
    """

    full_state_update = False
    sums: Tensor
    nll: Tensor

    def __init__(self, n_bins: int = 15) -> None:
        super().__init__()
        self.n_bins = n_bins
        sums = torch.zeros(2, len(TEMPERATURES), 3, n_bins, dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        nll = torch.zeros(2, len(TEMPERATURES), dtype=torch.float64)
        self.add_state("nll", nll, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor, half: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(B, K)`.
            classes: True classes, `(B,)`.
            half: 0 or 1 for each image, `(B,)` int64.
        """
        logits, classes, half = (x.to(self.device) for x in (logits, classes, half))
        correct = logits.argmax(dim=1) == classes
        for index, temperature in enumerate(TEMPERATURES.tolist()):
            scaled = logits.float() / temperature
            confidence = scaled.softmax(dim=1).amax(dim=1)
            cell = half * self.n_bins + equal_width_bin(confidence, self.n_bins)
            values = torch.stack((torch.ones_like(confidence), confidence, correct)).double()
            added = torch.zeros(3, 2 * self.n_bins, dtype=torch.float64, device=self.device)
            added.index_add_(1, cell, values)
            self.sums[:, index] += added.unflatten(1, (2, -1)).transpose(0, 1)
            nll = F.cross_entropy(scaled, classes, reduction="none").double()
            self.nll[:, index].index_add_(0, half, nll)

    def compute(self) -> Scaled:
        """Return the result over both halves, each scaled by the other's temperature."""
        best = self.nll.argmin(dim=1).flip(0)  # for each half, the index fitted on the other
        halves = torch.arange(2, device=best.device)
        sums = self.sums[halves, best].sum(dim=0)
        nll = self.nll[halves, best].sum() / sums[0].sum().clamp(min=1)
        return Scaled(TEMPERATURES[best.cpu()].mean(), reliability(sums), nll)
