"""Calibration against loops, torchmetrics and scikit-learn, and through the callbacks."""

import itertools

import numpy as np
import pytest
import torch
from helpers.digits import digits, quiet_trainer
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from torch.nn import functional as F
from torchmetrics.classification import MulticlassCalibrationError

from smmix_pl import InputError
from smmix_pl.callbacks import Calibration, TemperatureScaling
from smmix_pl.metrics import (
    AdaptiveCalibration,
    ClasswiseCalibration,
    ProperScores,
    ReliabilityBins,
    TemperatureScan,
)
from smmix_pl.metrics.reliability import equal_width_bin

seeds = st.integers(0, 2**32 - 1)


def predictions(seed, count=200, num_classes=5, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, num_classes, generator=generator)
    return logits, torch.randint(num_classes, (count,), generator=generator)


def fed(metric, *tensors, parts=64):
    """The result after uneven batches."""
    for batch in zip(*(tensor.split(parts) for tensor in tensors), strict=True):
        metric.update(*batch)
    return metric.compute()


def ece_by_loop(confidence, right, n_bins):
    """Guo et al., 2017: bins ((m - 1) / M, m / M]."""
    total = 0.0
    for m in range(1, n_bins + 1):
        low, high = np.float32((m - 1) / n_bins), np.float32(m / n_bins)
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += abs(right[inside].sum() - confidence[inside].sum(dtype=np.float64))
    return total / len(confidence)


def top_predictions(logits, classes):
    confidence, predicted = logits.softmax(1).max(1)
    return confidence.numpy(), (predicted == classes).numpy()


@given(seeds, st.sampled_from([1, 10, 15, 20]), st.sampled_from(["l1", "max"]))
def test_ece_and_mce_are_torchmetrics_own(seed, n_bins, norm):
    logits, classes = predictions(seed)
    theirs = MulticlassCalibrationError(5, n_bins=n_bins, norm=norm)
    theirs.update(logits.softmax(1), classes)
    ours = fed(ReliabilityBins(n_bins), logits, classes)
    found = ours.ece if norm == "l1" else ours.mce
    torch.testing.assert_close(found.float(), theirs.compute())


@given(seeds, st.sampled_from([1, 2, 10, 10_000]), st.sampled_from([5, 10, 15]))
def test_ece_is_the_loop_for_any_number_of_classes(seed, num_classes, n_bins):
    logits, classes = predictions(seed, count=40, num_classes=num_classes)
    result = fed(ReliabilityBins(n_bins), logits, classes, parts=16)
    expected = ece_by_loop(*top_predictions(logits, classes), n_bins)
    assert float(result.ece) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_on_an_edge_is_in_the_bin_below():
    """torchmetrics puts it in the bin above."""
    edges = torch.arange(5, 10) / 10  # 0.5, 0.6, ... 0.9 of two classes
    logits = torch.stack((edges.double().logit(), torch.zeros(5).double()), 1)
    logits[0] = 0  # exactly one half
    result = fed(ReliabilityBins(10), logits, torch.zeros(5, dtype=torch.long))
    assert result.total[4] == 1


def test_full_confidence_shares_the_last_bin_but_not_in_torchmetrics():
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0]])
    classes = torch.tensor([1, 0])
    ours = fed(ReliabilityBins(10), logits, classes)
    confidence = (1.0 + logits[1].softmax(0)[0].item()) / 2
    assert ours.total[-1] == 2
    assert float(ours.ece) == pytest.approx(abs(0.5 - confidence), abs=1e-6)
    theirs = MulticlassCalibrationError(2, n_bins=10, norm="l1")
    assert float(theirs(logits.softmax(1), classes)) > float(ours.ece) + 0.02


@pytest.mark.parametrize("n_bins", [1, 15])
def test_all_images_in_one_bin_and_of_one_class(n_bins):
    logits = torch.tensor([[9.0, 0.0, 0.0]]).expand(50, 3)
    result = fed(ReliabilityBins(n_bins), logits, torch.zeros(50, dtype=torch.long))
    assert float(result.ece) == pytest.approx(1 - float(logits[0].softmax(0)[0]), abs=1e-6)
    assert (result.total > 0).sum() == 1


@given(seeds, st.integers(1, 20))
def test_adaptive_ece_is_the_mean_gap_of_equal_shares(seed, n_bins):
    """A loop over the sorted predictions, each of weight 1 and shared where a border cuts it."""
    logits, classes = predictions(seed, count=101, scale=1.0)
    confidence, right = top_predictions(logits.double(), classes)
    order = np.argsort(confidence)
    gap = confidence[order] - right[order]
    borders = np.linspace(0, len(gap), n_bins + 1)
    expected = 0.0
    for low, high in itertools.pairwise(borders):
        weights = [max(0, min(high, i + 1) - max(low, i)) for i in range(len(gap))]
        expected += abs(np.dot(weights, gap)) / len(gap)
    # images in one fine bin lose their order: of 101 images a pair, at most, on each border
    result = float(fed(AdaptiveCalibration(n_bins), logits, classes))
    assert result == pytest.approx(expected, abs=2 * n_bins / 101 * 0.2 + 1e-6)


def test_adaptive_ece_is_scikit_learns_quantile_bins():
    generator = torch.Generator().manual_seed(0)
    logit = 4 * torch.rand(20_000, generator=generator)  # of class 1, always predicted
    logits = torch.stack((torch.zeros_like(logit), logit), 1)
    classes = (torch.rand(20_000, generator=generator) < 0.7).long()
    share, confidence = calibration_curve(
        classes.numpy(), logits.softmax(1)[:, 1].numpy(), n_bins=10, strategy="quantile"
    )
    expected = np.abs(share - confidence).mean()
    assert float(fed(AdaptiveCalibration(10), logits, classes)) == pytest.approx(expected, abs=1e-3)


def test_adaptive_ece_does_not_depend_on_the_order_of_equal_confidences():
    logits = torch.tensor([[2.0, 0.0]]).expand(60, 2)
    classes = torch.arange(60) % 2
    shuffled = classes.sort().values
    first = fed(AdaptiveCalibration(15), logits, classes)
    assert float(first) == pytest.approx(float(fed(AdaptiveCalibration(15), logits, shuffled)))


@given(seeds, st.sampled_from([1, 3, 50]))
def test_classwise_ece_is_the_loop(seed, num_classes):
    logits, classes = predictions(seed, count=60, num_classes=num_classes)
    probability = logits.softmax(1).numpy()
    expected = np.mean(
        [ece_by_loop(probability[:, k], (classes == k).numpy(), 15) for k in range(num_classes)]
    )
    found = fed(ClasswiseCalibration(num_classes, 15), logits, classes)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@given(seeds)
def test_nll_is_scikit_learns_and_brier_the_loop(seed):
    logits, classes = predictions(seed)
    found = fed(ProperScores(), logits, classes)
    probability = logits.double().softmax(1)
    nll = log_loss(classes, probability.numpy(), labels=range(5))
    assert float(found["nll"]) == pytest.approx(nll, rel=1e-5)
    brier = (probability - F.one_hot(classes, 5)).square().sum(1).mean()
    assert float(found["brier"]) == pytest.approx(float(brier), rel=1e-5)


@given(seeds, st.floats(0.5, 3.0))
def test_temperature_scaling_undoes_a_temperature(seed, temperature):
    logits, _ = predictions(seed, count=3000, num_classes=4, scale=1.5)
    generator = torch.Generator().manual_seed(seed)
    classes = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    half = torch.arange(3000) % 2
    scaled = fed(TemperatureScan(), logits * temperature, classes, half, parts=1000)
    assert float(scaled.temperature) == pytest.approx(temperature, rel=0.15)
    assert scaled.reliability.total.sum() == 3000
    before = fed(ProperScores(), logits * temperature, classes)["nll"]
    assert scaled.nll <= before + 0.01


def test_no_image_is_scaled_by_its_own_half():
    """One half wants a high temperature, the other a low one: each gets the other's."""
    logits = torch.tensor([[2.0, 0.0]]).expand(400, 2)
    half = torch.arange(400) % 2
    classes = torch.where(half == 0, 0, (torch.arange(400) // 2) % 2)  # sure, and at random
    scaled = fed(TemperatureScan(), logits, classes, half)
    assert float(scaled.temperature) == pytest.approx((0.125 + 8.0) / 2)
    worse = F.cross_entropy(8 * logits[1::2], classes[1::2])
    better = F.cross_entropy(logits[::2] / 8, classes[::2])
    assert float(scaled.nll) == pytest.approx(float(worse + better) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "metric", [ReliabilityBins(), AdaptiveCalibration(), ClasswiseCalibration(5), ProperScores()]
)
def test_states_do_not_grow_and_are_summed_over_ranks(metric):
    """Two ranks with uneven parts, their states added up, are one rank."""
    logits, classes = predictions(0)
    size = sum(value.numel() for value in metric.metric_state.values())
    whole, parts = metric.clone(), [metric.clone(), metric.clone()]
    whole.update(logits, classes)
    for part, rows in zip(parts, (slice(0, 77), slice(77, 200)), strict=True):
        part.update(logits[rows], classes[rows])
    assert sum(value.numel() for value in whole.metric_state.values()) == size
    for name, value in whole.metric_state.items():
        added = parts[0].metric_state[name] + parts[1].metric_state[name]
        torch.testing.assert_close(added, value)


def test_bfloat16_logits_are_read_in_float32():
    logits, classes = predictions(0)
    half, full = logits.bfloat16(), logits.bfloat16().float()
    first, second = (fed(ReliabilityBins(), x, classes).ece for x in (half, full))
    assert first == second


def test_callback_logs_every_name_in_validation_and_test(tiny_module):
    data = digits(held_out=0.1)
    trainer = quiet_trainer(Calibration(), Calibration(10), TemperatureScaling())
    [validated] = trainer.validate(tiny_module, data, verbose=False)
    [tested] = trainer.test(tiny_module, data, verbose=False)
    names = {"ece", "adaptive_ece", "classwise_ece", "mce", "nll", "brier", "ece_10"}
    assert {f"val/{name}" for name in names} <= validated.keys()
    names |= {"ece_scaled", "nll_scaled", "temperature", "ece_openmixup_10"}
    assert {f"test/{name}" for name in names} <= tested.keys()
    assert tested["test/nll"] == pytest.approx(tested["test/loss"], rel=1e-5)


@given(st.integers(1, 60), st.data())
def test_every_edge_is_in_the_bin_below_it(n_bins, data):
    """Also where float32 cannot hold the edge: what prints as the edge is on it."""
    m = data.draw(st.integers(0, n_bins))
    edge = torch.tensor(m / n_bins, dtype=torch.float32)
    neighbors = torch.stack((edge, torch.nextafter(edge, torch.tensor(2.0)).clamp(max=1)))
    found = equal_width_bin(neighbors, n_bins).tolist()
    assert found == [max(m - 1, 0), min(m, n_bins - 1)]


EVERY = {
    "ece": lambda k: ReliabilityBins(),
    "adaptive": lambda k: AdaptiveCalibration(),
    "classwise": lambda k: ClasswiseCalibration(k),
    "proper": lambda k: ProperScores(),
}


@pytest.mark.parametrize("name", EVERY)
def test_nothing_measured_is_0_and_no_error(name):
    found = EVERY[name](3).compute()
    values = found.values() if isinstance(found, dict) else [getattr(found, "ece", found)]
    assert [float(value) for value in values] == [0.0] * len(values)


def test_one_class_is_always_right():
    logits, classes = torch.randn(30, 1), torch.zeros(30, dtype=torch.long)
    for name, metric in EVERY.items():
        found = fed(metric(1), logits, classes)
        values = found.values() if isinstance(found, dict) else [getattr(found, "ece", found)]
        assert all(float(value) == pytest.approx(0, abs=1e-6) for value in values), name
    scaled = fed(TemperatureScan(), logits, classes, torch.arange(30) % 2)
    assert float(scaled.nll) == 0


def test_ten_thousand_classes():
    logits, classes = predictions(0, count=60, num_classes=10_000)
    probability = logits.double().softmax(1)
    right = F.one_hot(classes, 10_000)
    found = fed(ProperScores(), logits, classes, parts=16)
    nll = F.cross_entropy(logits.double(), classes)
    assert float(found["nll"]) == pytest.approx(float(nll), rel=1e-5)
    brier = (probability - right).square().sum(1).mean()
    assert float(found["brier"]) == pytest.approx(float(brier), rel=1e-5)
    confidence, correct = top_predictions(logits.double(), classes)
    one_bin = fed(AdaptiveCalibration(1), logits, classes, parts=16)
    assert float(one_bin) == pytest.approx(abs(confidence.mean() - correct.mean()), abs=1e-6)
    classwise = fed(ClasswiseCalibration(10_000, 1), logits, classes, parts=16)
    expected = (probability - right).sum(0).abs().sum() / (60 * 10_000)
    assert float(classwise) == pytest.approx(float(expected), rel=1e-4)


def test_no_bins_are_refused():
    with pytest.raises(InputError, match="n_bins is 0"):
        Calibration(0)
