"""Risk-coverage curves and conformal sets, compared with their definitions on plain lists."""

import math

import numpy as np
import pytest
import torch

from smmix_pl.metrics import ConformalScores, RiskCoverage, prediction_sets


def logits_of(images, classes=5, seed=0):
    """Return logits and true classes of a model whose probabilities are right."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_risk_is_the_error_of_the_most_confident_images():
    logits, classes = logits_of(400)
    metric = RiskCoverage()
    for part in range(4):
        metric.update(logits[part::4], classes[part::4])
    found = metric.compute()
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != classes)[confidence.argsort(descending=True)].double()
    number = torch.arange(1, 401)
    np.testing.assert_allclose(found.risk, wrong.cumsum(0) / number, atol=1e-2)
    assert found.aurc == pytest.approx(float((wrong.cumsum(0) / number).mean()), abs=1e-3)
    perfect = wrong.sort().values.cumsum(0) / number
    np.testing.assert_allclose(found.perfect_risk, perfect)
    assert found.e_aurc == pytest.approx(found.aurc - float(perfect.mean()))
    assert found.at(1.0) == pytest.approx(float(wrong.mean()))
    assert found.at(0.5) == pytest.approx(float(wrong[:200].mean()), abs=1e-2)


def test_equal_confidences_have_the_risk_of_the_mean_order():
    metric = RiskCoverage()
    metric.update(torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 1, 0, 0]))
    assert metric.compute().risk.tolist() == [0.25] * 4


def test_a_perfect_order_has_no_excess():
    logits = torch.tensor([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    metric = RiskCoverage()
    metric.update(logits, torch.tensor([0, 0, 1, 1]))
    found = metric.compute()
    assert found.e_aurc == 0
    assert found.aurc == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)


def plain_sets(known, classes, new, alpha, score, uniforms):
    """Return the sets of split conformal prediction as a bool mask, from their definition."""

    def scores(logits, uniform):
        p = logits.softmax(1)
        if score == "lac":
            return 1 - p
        at_least = (p[:, None, :] >= p[:, :, None]).double() * p[:, None, :]
        return at_least.sum(2) - uniform[:, None] * p

    true = scores(known.double(), uniforms[0]).gather(1, classes[:, None])[:, 0].sort().values
    rank = math.ceil((len(true) + 1) * (1 - alpha) - 1e-9)
    limit = true[rank - 1] if rank <= len(true) else math.inf
    return scores(new.double(), uniforms[1]) <= limit


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_are_those_of_the_definition(score, alpha):
    known, of_known = logits_of(500)
    new, of_new = logits_of(600, seed=1)
    uniforms = torch.rand(500), torch.rand(600)
    metrics = ConformalScores(score), ConformalScores(score)
    for metric, logits, classes, uniform in zip(
        metrics, (known, new), (of_known, of_new), uniforms, strict=True
    ):
        metric.update(logits, classes, torch.zeros(len(classes), dtype=torch.long), uniform)
    held, size = prediction_sets(*(metric.compute() for metric in metrics), alpha)
    sets = plain_sets(known, of_known, new, alpha, score, uniforms)
    assert size == pytest.approx(float(sets.sum(1).double().mean()), abs=0.02)
    right = sets.gather(1, of_new[:, None]).double().mean()
    assert held == pytest.approx(float(right), abs=0.01)
    assert held == pytest.approx(1 - alpha, abs=0.05)


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_two_halves_calibrate_each_other(score):
    logits, classes = logits_of(2000)
    half, uniform = torch.arange(2000) % 2, torch.rand(2000)
    both = ConformalScores(score)
    both.update(logits, classes, half, uniform)
    counts = both.compute()
    found = prediction_sets(counts.flip(0), counts, 0.1)
    single = []
    for one in (0, 1):
        metrics = []
        for kept in (half != one, half == one):
            metrics.append(ConformalScores(score))
            zeros = torch.zeros(1000, dtype=torch.long)
            metrics[-1].update(logits[kept], classes[kept], zeros, uniform[kept])
        single.append(prediction_sets(*(metric.compute() for metric in metrics), 0.1))
    assert found == pytest.approx(tuple(np.mean(single, axis=0)))


def test_too_few_calibration_images_give_sets_of_all_possible_classes():
    logits, classes = logits_of(3)
    logits[:, 4] = -torch.inf  # excluded by the dataset
    classes = classes.clamp(max=3)
    metric = ConformalScores("lac")
    metric.update(logits, classes, torch.zeros(3, dtype=torch.long), torch.zeros(3))
    assert prediction_sets(metric.compute(), metric.compute(), 0.1) == (1.0, 4.0)
