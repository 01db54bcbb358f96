"""Detection of outliers against scikit-learn, and through the callback."""

import numpy as np
import pytest
import torch
from helpers.digits import digits, found_on_digits, quiet_trainer
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from smmix_pl import InputError
from smmix_pl.callbacks import OutlierDetection
from smmix_pl.metrics import DetectionHistograms, coarse
from smmix_pl.metrics.histogram import log_odds

scores = st.lists(st.integers(-500, 900), min_size=1, max_size=60)


def logits_of(odds):
    """Two classes, the first with these log odds in 64ths."""
    first = torch.tensor(odds) / 64
    # the largest probability is one half or more: three classes let the odds fall below 1
    others = torch.full_like(first, -np.log(2))
    return torch.stack((first, others, others), dim=1)


def detected(images, outliers):
    metric = DetectionHistograms()
    metric.update(images, outliers=False)
    metric.update(outliers, outliers=True)
    return metric.compute()


@given(scores, scores)
def test_auroc_and_fpr_are_scikit_learns_with_ties(images, outliers):
    images, outliers = (logits_of([max(x, -20) for x in part]) for part in (images, outliers))
    found = detected(images, outliers)
    known = np.repeat([True, False], [len(images), len(outliers)])
    score = (64 * log_odds(torch.cat((images, outliers)))).round()
    assert found.auroc == pytest.approx(roc_auc_score(known, score))
    fpr, tpr, _ = roc_curve(known, score, drop_intermediate=False)
    assert found.fpr95 == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-9)])


def test_confidences_of_1_in_float32_are_still_told_apart():
    images, outliers = logits_of([64 * 25]), logits_of([64 * 20])
    assert images.softmax(1).amax() == outliers.softmax(1).amax() == 1
    assert detected(images, outliers).auroc == 1


@given(scores, scores)
def test_coarse_bins_keep_every_image(images, outliers):
    left, shares = coarse(detected(logits_of(images), logits_of(outliers)).shares)
    assert shares.sum(axis=1) == pytest.approx([1, 1])
    assert np.diff(left) == pytest.approx(0.25)
    assert shares.shape == (2, len(left))


def test_uniform_noise_belongs_to_the_place(tiny_module):
    one, other = (
        found_on_digits(tiny_module, OutlierDetection(), batch_size=size) for size in (100, 77)
    )
    for name in ("test/ood_auroc", "test/ood_fpr95"):
        assert one[name] == pytest.approx(other[name], abs=2e-3)
    again = found_on_digits(tiny_module, OutlierDetection(seed=1))
    assert again["test/ood_auroc"] != one["test/ood_auroc"]


def test_outliers_of_another_data_set_are_all_seen(tiny_module):
    """More outliers than test batches: the last batch takes the rest."""
    known = digits(batch_size=359)
    others = digits(batch_size=50)
    callback = OutlierDetection(others)
    [tested] = quiet_trainer(callback).test(tiny_module, known, verbose=False)
    assert tested["test/ood_auroc"] == pytest.approx(0.5, abs=1e-6)  # the same images
    with pytest.raises(InputError, match="image_size"):
        outliers = digits(image_size=24)
        quiet_trainer(OutlierDetection(outliers)).test(tiny_module, known, verbose=False)
