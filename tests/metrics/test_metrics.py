"""Calibration bins against torchmetrics and against a loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCalibrationError

from smmix_pl.metrics import ReliabilityBins


def random_predictions(seed, count=200, classes=5, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(classes, (count,), generator=generator)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 10, 15, 20]))
def test_ece_is_torchmetrics_own(seed, n_bins):
    logits, classes = random_predictions(seed)
    ours, theirs = ReliabilityBins(n_bins), MulticlassCalibrationError(5, n_bins=n_bins, norm="l1")
    for part in range(0, 200, 64):
        ours.update(logits[part : part + 64], classes[part : part + 64])
    theirs.update(logits.softmax(1), classes)
    torch.testing.assert_close(ours.compute().ece.float(), theirs.compute())


def test_full_confidence_shares_the_last_bin():
    """torchmetrics gives a confidence of exactly 1 a bin of its own; the textbook does not."""
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0]])
    bins = ReliabilityBins(10)
    bins.update(logits, torch.tensor([0, 1]))
    result = bins.compute()
    assert result.total[-1] == 2
    confidence = (1.0 + torch.tensor([3.0, 0.0]).softmax(0)[0].item()) / 2
    assert result.ece == pytest.approx(abs(0.5 - confidence), abs=1e-6)


def test_state_does_not_grow():
    bins = ReliabilityBins()
    for seed in range(3):
        bins.update(*random_predictions(seed))
    assert sum(value.numel() for value in bins.metric_state.values()) == 45


def test_bfloat16_logits_are_read_in_float32():
    logits, classes = random_predictions(0)
    half, full = ReliabilityBins(), ReliabilityBins()
    half.update(logits.bfloat16(), classes)
    full.update(logits.bfloat16().float(), classes)
    assert half.compute().ece == full.compute().ece
