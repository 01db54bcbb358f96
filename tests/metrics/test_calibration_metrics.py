"""Calibration metrics compared with loops, torchmetrics and scikit-learn."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from torch.nn import functional as F
from torchmetrics.classification import MulticlassCalibrationError

from smmix_pl.metrics import (
    AdaptiveCalibration,
    ClasswiseCalibration,
    ProperScores,
    ReliabilityBins,
    TemperatureScan,
)
from smmix_pl.metrics.reliability import equal_width_bin

seeds = st.integers(0, 2**32 - 1)

METRICS = {
    "ece": lambda num_classes: ReliabilityBins(),
    "adaptive": lambda num_classes: AdaptiveCalibration(),
    "classwise": ClasswiseCalibration,
    "proper": lambda num_classes: ProperScores(),
}


def predictions(seed, count=200, num_classes=5, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, num_classes, generator=generator)
    return logits, torch.randint(num_classes, (count,), generator=generator)


def computed(metric, *tensors, batch=64):
    """Return the result after batches of uneven size."""
    for parts in zip(*(tensor.split(batch) for tensor in tensors), strict=True):
        metric.update(*parts)
    return metric.compute()


def values_of(result):
    """Return the values of any metric of `METRICS` as a list."""
    values = result.values() if isinstance(result, dict) else [getattr(result, "ece", result)]
    return [float(value) for value in values]


def ece_by_loop(confidence, correct, n_bins):
    """Bins ((m - 1) / M, m / M] as in Guo et al., 2017."""
    total = 0.0
    for m in range(1, n_bins + 1):
        low, high = np.float32((m - 1) / n_bins), np.float32(m / n_bins)
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += abs(correct[inside].sum() - confidence[inside].sum(dtype=np.float64))
    return total / len(confidence)


def top_predictions(logits, classes):
    confidence, predicted = logits.softmax(1).max(1)
    return confidence.numpy(), (predicted == classes).numpy()


@given(seeds, st.sampled_from([1, 10, 15, 20]), st.sampled_from(["l1", "max"]))
def test_ece_and_mce_equal_torchmetrics(seed, n_bins, norm):
    logits, classes = predictions(seed)
    reference = MulticlassCalibrationError(5, n_bins=n_bins, norm=norm)
    reference.update(logits.softmax(1), classes)
    result = computed(ReliabilityBins(n_bins), logits, classes)
    value = result.ece if norm == "l1" else result.mce
    torch.testing.assert_close(value.float(), reference.compute())


@given(seeds, st.sampled_from([1, 2, 10, 10_000]), st.sampled_from([5, 10, 15]))
def test_ece_equals_the_loop_for_any_number_of_classes(seed, num_classes, n_bins):
    logits, classes = predictions(seed, count=40, num_classes=num_classes)
    result = computed(ReliabilityBins(n_bins), logits, classes, batch=16)
    expected = ece_by_loop(*top_predictions(logits, classes), n_bins)
    assert float(result.ece) == pytest.approx(expected, abs=1e-6)


def test_confidence_on_an_edge_belongs_to_the_lower_bin():
    """torchmetrics counts it in the upper bin."""
    logits = torch.zeros(1, 2)  # a confidence of exactly one half
    result = computed(ReliabilityBins(10), logits, torch.zeros(1, dtype=torch.long))
    assert result.total[4] == 1


@given(st.integers(1, 60), st.data())
def test_every_edge_belongs_to_the_lower_bin(n_bins, data):
    """Also edges that float32 cannot represent: the nearest float32 counts as the edge."""
    m = data.draw(st.integers(0, n_bins))
    edge = torch.tensor(m / n_bins, dtype=torch.float32)
    values = torch.stack((edge, torch.nextafter(edge, torch.tensor(2.0)).clamp(max=1)))
    assert equal_width_bin(values, n_bins).tolist() == [max(m - 1, 0), min(m, n_bins - 1)]


def test_confidence_of_1_belongs_to_the_last_bin():
    """torchmetrics gives it a bin of its own, and reports a larger error."""
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0]])
    classes = torch.tensor([1, 0])
    result = computed(ReliabilityBins(10), logits, classes)
    confidence = (1.0 + logits[1].softmax(0)[0].item()) / 2
    assert result.total[-1] == 2
    assert float(result.ece) == pytest.approx(abs(0.5 - confidence), abs=1e-6)
    reference = MulticlassCalibrationError(2, n_bins=10, norm="l1")
    assert float(reference(logits.softmax(1), classes)) > float(result.ece) + 0.02


@pytest.mark.parametrize("n_bins", [1, 15])
def test_identical_images_of_one_class(n_bins):
    logits = torch.tensor([[9.0, 0.0, 0.0]]).expand(50, 3)
    result = computed(ReliabilityBins(n_bins), logits, torch.zeros(50, dtype=torch.long))
    assert float(result.ece) == pytest.approx(1 - float(logits[0].softmax(0)[0]), abs=1e-6)
    assert (result.total > 0).sum() == 1


@given(seeds, st.integers(1, 20))
def test_adaptive_ece_equals_the_loop_over_sorted_predictions(seed, n_bins):
    """Each prediction has a weight of 1, which is split where a border cuts it."""
    logits, classes = predictions(seed, count=101, scale=1.0)
    confidence, correct = top_predictions(logits.double(), classes)
    order = np.argsort(confidence)
    gap = confidence[order] - correct[order]
    borders = np.linspace(0, len(gap), n_bins + 1)
    expected = 0.0
    for low, high in itertools.pairwise(borders):
        weights = [max(0, min(high, i + 1) - max(low, i)) for i in range(len(gap))]
        expected += abs(np.dot(weights, gap)) / len(gap)
    # images in one fine bin lose their order: of 101 images, at most a pair on each border
    result = float(computed(AdaptiveCalibration(n_bins), logits, classes))
    assert result == pytest.approx(expected, abs=2 * n_bins / 101 * 0.2 + 1e-6)


def test_adaptive_ece_equals_quantile_bins_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logit = 4 * torch.rand(20_000, generator=generator)  # of class 1, which is always predicted
    logits = torch.stack((torch.zeros_like(logit), logit), 1)
    classes = (torch.rand(20_000, generator=generator) < 0.7).long()
    accuracy, confidence = calibration_curve(
        classes.numpy(), logits.softmax(1)[:, 1].numpy(), n_bins=10, strategy="quantile"
    )
    result = float(computed(AdaptiveCalibration(10), logits, classes))
    assert result == pytest.approx(np.abs(accuracy - confidence).mean(), abs=1e-3)


def test_adaptive_ece_ignores_the_order_of_equal_confidences():
    logits = torch.tensor([[2.0, 0.0]]).expand(60, 2)
    classes = torch.arange(60) % 2
    first = computed(AdaptiveCalibration(15), logits, classes)
    second = computed(AdaptiveCalibration(15), logits, classes.sort().values)
    assert float(first) == pytest.approx(float(second))


@given(seeds, st.sampled_from([1, 3, 50]))
def test_classwise_ece_equals_the_loop(seed, num_classes):
    logits, classes = predictions(seed, count=60, num_classes=num_classes)
    probability = logits.softmax(1).numpy()
    expected = np.mean(
        [ece_by_loop(probability[:, k], (classes == k).numpy(), 15) for k in range(num_classes)]
    )
    result = computed(ClasswiseCalibration(num_classes, 15), logits, classes)
    assert float(result) == pytest.approx(expected, abs=1e-6)


@given(seeds)
def test_nll_equals_scikit_learn_and_brier_score_its_definition(seed):
    logits, classes = predictions(seed)
    result = computed(ProperScores(), logits, classes)
    probability = logits.double().softmax(1)
    nll = log_loss(classes, probability.numpy(), labels=range(5))
    assert float(result["nll"]) == pytest.approx(nll, rel=1e-5)
    brier = (probability - F.one_hot(classes, 5)).square().sum(1).mean()
    assert float(result["brier"]) == pytest.approx(float(brier), rel=1e-5)


@settings(max_examples=10)
@given(seeds, st.floats(0.5, 3.0))
def test_temperature_scaling_recovers_the_temperature(seed, temperature):
    logits, _ = predictions(seed, count=3000, num_classes=4, scale=1.5)
    generator = torch.Generator().manual_seed(seed)
    classes = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    half = torch.arange(3000) % 2
    scaled = computed(TemperatureScan(), logits * temperature, classes, half, batch=1000)
    assert float(scaled.temperature) == pytest.approx(temperature, rel=0.15)
    assert scaled.reliability.total.sum() == 3000
    before = computed(ProperScores(), logits * temperature, classes)["nll"]
    assert scaled.nll <= before + 0.01


def test_each_half_is_scaled_by_the_temperature_of_the_other():
    """The best temperature is low for one half and high for the other."""
    logits = torch.tensor([[2.0, 0.0]]).expand(400, 2)
    half = torch.arange(400) % 2
    classes = torch.where(half == 0, 0, (torch.arange(400) // 2) % 2)  # certain, and random
    scaled = computed(TemperatureScan(), logits, classes, half)
    assert float(scaled.temperature) == pytest.approx((0.125 + 8.0) / 2)
    worse = F.cross_entropy(8 * logits[1::2], classes[1::2])
    better = F.cross_entropy(logits[::2] / 8, classes[::2])
    assert float(scaled.nll) == pytest.approx(float(worse + better) / 2, rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_states_have_a_fixed_size_and_add_up_over_ranks(name):
    """The summed states of two ranks with uneven parts equal the state of one rank."""
    metric = METRICS[name](5)
    logits, classes = predictions(0)
    size = sum(value.numel() for value in metric.metric_state.values())
    complete, parts = metric.clone(), [metric.clone(), metric.clone()]
    complete.update(logits, classes)
    for part, rows in zip(parts, (slice(0, 77), slice(77, 200)), strict=True):
        part.update(logits[rows], classes[rows])
    assert sum(value.numel() for value in complete.metric_state.values()) == size
    for state, value in complete.metric_state.items():
        added = parts[0].metric_state[state] + parts[1].metric_state[state]
        torch.testing.assert_close(added, value)


@pytest.mark.parametrize("name", METRICS)
def test_bfloat16_logits_are_converted_to_float32(name):
    logits, classes = predictions(0)
    half, full = logits.bfloat16(), logits.bfloat16().float()
    first, second = (values_of(computed(METRICS[name](5), x, classes)) for x in (half, full))
    assert first == second


@pytest.mark.filterwarnings("ignore:.*was called before the ``update`` method")
@pytest.mark.parametrize("name", METRICS)
def test_metrics_without_images_are_0(name):
    values = values_of(METRICS[name](3).compute())
    assert values == [0.0] * len(values)


def test_a_single_class_is_always_correct():
    logits, classes = torch.randn(30, 1), torch.zeros(30, dtype=torch.long)
    for name, metric in METRICS.items():
        values = values_of(computed(metric(1), logits, classes))
        assert values == pytest.approx([0.0] * len(values), abs=1e-6), name
    scaled = computed(TemperatureScan(), logits, classes, torch.arange(30) % 2)
    assert float(scaled.nll) == 0


def test_ten_thousand_classes():
    logits, classes = predictions(0, count=60, num_classes=10_000)
    probability = logits.double().softmax(1)
    difference = probability - F.one_hot(classes, 10_000)
    scores = computed(ProperScores(), logits, classes, batch=16)
    nll = F.cross_entropy(logits.double(), classes)
    assert float(scores["nll"]) == pytest.approx(float(nll), rel=1e-5)
    brier = difference.square().sum(1).mean()
    assert float(scores["brier"]) == pytest.approx(float(brier), rel=1e-5)
    confidence, correct = top_predictions(logits.double(), classes)
    one_bin = computed(AdaptiveCalibration(1), logits, classes, batch=16)
    assert float(one_bin) == pytest.approx(abs(confidence.mean() - correct.mean()), abs=1e-6)
    classwise = computed(ClasswiseCalibration(10_000, 1), logits, classes, batch=16)
    expected = difference.sum(0).abs().sum() / (60 * 10_000)
    assert float(classwise) == pytest.approx(float(expected), rel=1e-4)
