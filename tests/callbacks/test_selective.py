"""Selective prediction and conformal sets through the callbacks."""

import pytest
from helpers.digits import metrics_on_digits
from helpers.image_folders import write_image_folder

from smmix_pl import InputError
from smmix_pl.callbacks import ConformalSets, SelectivePrediction
from smmix_pl.data import Folder


def test_the_error_at_full_coverage_is_that_of_the_test(tiny_module):
    callback = SelectivePrediction()
    metrics = metrics_on_digits(tiny_module, callback)
    assert metrics["test/aurc"] >= metrics["test/e_aurc"] >= 0
    assert {f"test/risk_{coverage}" for coverage in (50, 60, 70, 80, 90, 95)} <= metrics.keys()
    drawn = callback.drawn["Model"]
    assert drawn.y[-1] == pytest.approx(1 - metrics["test/top1"])
    assert callback.figures(callback.result).keys() == {"risk"}


@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_sets_hold_the_true_class_as_often_as_promised(held_out, tiny_module):
    """With held-out images they are calibrated on those, without on halves of the test."""
    callback = ConformalSets([0.1, 0.4])
    metrics = metrics_on_digits(tiny_module, callback, held_out=held_out)
    for score in ("lac", "aps"):
        assert metrics[f"test/conformal_coverage_{score}_90"] == pytest.approx(0.9, abs=0.06)
        assert metrics[f"test/conformal_coverage_{score}_60"] == pytest.approx(0.6, abs=0.1)
        sizes = [metrics[f"test/conformal_size_{score}_{level}"] for level in (60, 90)]
        assert 0 < sizes[0] < sizes[1] <= 10
    on_validation = callback.result.protocol["calibrated_on"] == "validation images"
    assert on_validation == bool(held_out)
    assert callback.figures(callback.result).keys() == {"conformal"}


def test_sets_do_not_depend_on_the_batch_size(tiny_module):
    first, second = (
        metrics_on_digits(tiny_module, ConformalSets(), batch_size=size, held_out=0.1)
        for size in (100, 77)
    )
    keys = [key for key in first if "conformal" in key]
    assert len(keys) == 4
    assert [first[key] for key in keys] == pytest.approx([second[key] for key in keys], abs=2e-3)


def test_validation_images_of_their_own_calibrate(tmp_path):
    for part in ("train", "val", "test"):
        write_image_folder(tmp_path / part)
    settings = {"root": str(tmp_path), "image_size": 32, "batch_size": 2, "num_workers": 0}
    assert len(Folder(test="test", **settings).calibration_dataloader()) == 6
    assert Folder(**settings).calibration_dataloader() is None
    assert Folder(held_out=0.3, **settings).calibration_dataloader() is not None


@pytest.mark.parametrize("alpha", [[], [0.0], [1.0], [float("nan")]])
def test_an_impossible_alpha_is_rejected(alpha):
    with pytest.raises(InputError, match=r"ConformalSets\.alpha="):
        ConformalSets(alpha)
