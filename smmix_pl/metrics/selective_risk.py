"""Selective classification: the error of the most confident images, by their number."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from smmix_pl.metrics.histogram import FINE_BINS, fine_bin, log_odds


class SelectiveRisk(NamedTuple):
    """Errors when only the most confident images are classified.

    Attributes:
        risk: Error of the i most confident images, for i from 1 to N, `(N,)`.
        perfect_risk: The same if all errors were the least confident images, `(N,)`.
    """

    risk: np.ndarray
    perfect_risk: np.ndarray

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: mean of the risk over all coverages, in [0, 1]."""
        return float(self.risk.mean()) if len(self.risk) else float("nan")

    @property
    def e_aurc(self) -> float:
        """Excess AURC: what remains if the area of a perfect order is subtracted."""
        return float((self.risk - self.perfect_risk).mean()) if len(self.risk) else float("nan")

    def at(self, coverage: float) -> float:
        """Return the risk at a coverage in (0, 1], the fraction of images that are classified."""
        images = max(1, round(coverage * len(self.risk)))
        return float(self.risk[images - 1]) if len(self.risk) else float("nan")


class RiskCoverage(Metric):
    """Risk-coverage curve, AURC, and E-AURC (Geifman et al., 2017 and 2019).

    Images are ordered by their largest softmax probability, in a fine histogram of its log odds.
    The images of one bin count as equally confident: their error is spread evenly, which is the
    mean over all orders. torchmetrics has no such metric.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(2, FINE_BINS, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, classes: Tensor) -> None:
        """Add a batch of logits `(B, K)` and true classes `(B,)`."""
        logits, classes = logits.to(self.device), classes.to(self.device)
        wrong = (logits.argmax(dim=1) != classes).double()
        values = torch.stack((torch.ones_like(wrong), wrong))
        self.sums.index_add_(1, fine_bin(log_odds(logits)), values)

    def compute(self) -> SelectiveRisk:
        """Return the risk at every coverage."""
        images, errors = self.sums.cpu().numpy()[:, ::-1]  # the most confident first
        filled = images > 0
        counts, errors = images[filled].astype(int), errors[filled]
        number = np.arange(1, counts.sum() + 1)
        risk = np.repeat(errors / counts, counts).cumsum() / number
        correct = counts.sum() - errors.sum()
        return SelectiveRisk(risk, np.maximum(0, number - correct) / number)
