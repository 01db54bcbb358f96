"""Outlier detection through the callback."""

import pytest
from helpers.digits import digits, metrics_on_digits, quiet_trainer

from smmix_pl import InputError
from smmix_pl.callbacks import OutlierDetection


def test_noise_depends_on_place_and_seed_only(tiny_module):
    first, second = (
        metrics_on_digits(tiny_module, OutlierDetection(), batch_size=size) for size in (100, 77)
    )
    for name in ("test/ood_auroc", "test/ood_fpr95"):
        assert first[name] == pytest.approx(second[name], abs=2e-3)
    reseeded = metrics_on_digits(tiny_module, OutlierDetection(seed=1))
    assert reseeded["test/ood_auroc"] != first["test/ood_auroc"]


def test_all_outliers_of_another_dataset_are_evaluated(tiny_module):
    """Also if there are more batches of outliers than of test images."""
    callback = OutlierDetection(digits(batch_size=50))
    trainer = quiet_trainer(callback)
    [metrics] = trainer.test(tiny_module, digits(batch_size=359), verbose=False)
    assert callback.result.protocol["outlier_images"] == 359
    assert metrics["test/ood_auroc"] == pytest.approx(0.5, abs=1e-6)  # the same images


def test_outliers_of_another_size_are_rejected(tiny_module):
    trainer = quiet_trainer(OutlierDetection(digits(image_size=24)))
    with pytest.raises(InputError, match=r"OutlierDetection\.outliers\.image_size=\[24, 24\]"):
        trainer.test(tiny_module, digits(), verbose=False)
