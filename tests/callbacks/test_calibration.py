"""Calibration callbacks in validation and test."""

import pytest
from helpers.digits import digits, quiet_trainer

from smmix_pl import InputError
from smmix_pl.callbacks import Calibration, TemperatureScaling


def test_metrics_are_logged_in_validation_and_test(tiny_module):
    data = digits(held_out=0.1)
    trainer = quiet_trainer(Calibration(), Calibration(10), TemperatureScaling())
    [validated] = trainer.validate(tiny_module, data, verbose=False)
    [tested] = trainer.test(tiny_module, data, verbose=False)
    names = {"ece", "adaptive_ece", "classwise_ece", "mce", "nll", "brier", "ece_10"}
    assert {f"val/{name}" for name in names} <= validated.keys()
    names |= {"ece_scaled", "nll_scaled", "temperature", "ece_openmixup_10"}
    assert {f"test/{name}" for name in names} <= tested.keys()
    assert tested["test/nll"] == pytest.approx(tested["test/loss"], rel=1e-5)


@pytest.mark.parametrize("callback", [Calibration, TemperatureScaling])
def test_zero_bins_are_rejected(callback):
    with pytest.raises(InputError, match=rf"{callback.__name__}\.n_bins=0\b"):
        callback(0)
