"""Outlier detection compared with scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from smmix_pl.metrics import DetectionHistograms, merge_bins
from smmix_pl.metrics.histogram import log_odds

scores = st.lists(st.integers(-20, 900), min_size=1, max_size=60)
"""Log odds in 64ths. With three classes the largest probability is at least one third."""


def logits_with(odds):
    """Return logits of three classes with these log odds of the first, in 64ths."""
    first = torch.tensor(odds) / 64
    others = torch.full_like(first, -np.log(2))
    return torch.stack((first, others, others), dim=1)


def detection(images, outliers):
    metric = DetectionHistograms()
    metric.update(images, outliers=False)
    metric.update(outliers, outliers=True)
    return metric.compute()


@given(scores, scores)
def test_auroc_and_fpr_equal_scikit_learn_with_ties(images, outliers):
    images, outliers = logits_with(images), logits_with(outliers)
    result = detection(images, outliers)
    known = np.repeat([True, False], [len(images), len(outliers)])
    score = (64 * log_odds(torch.cat((images, outliers)))).round()
    assert result.auroc == pytest.approx(roc_auc_score(known, score))
    fpr, tpr, _ = roc_curve(known, score, drop_intermediate=False)
    assert result.fpr95 == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-9)])
    assert result.outliers == len(outliers)


def test_confidences_that_round_to_1_are_ranked():
    images, outliers = logits_with([64 * 25]), logits_with([64 * 20])
    assert images.softmax(1).amax() == outliers.softmax(1).amax() == 1
    assert detection(images, outliers).auroc == 1


@given(scores, scores)
def test_merged_bins_contain_every_image(images, outliers):
    left, fractions = merge_bins(detection(logits_with(images), logits_with(outliers)).fractions)
    assert fractions.sum(axis=1) == pytest.approx([1, 1])
    assert np.diff(left) == pytest.approx(0.25)
    assert fractions.shape == (2, len(left))
