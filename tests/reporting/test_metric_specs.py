"""The table of metrics: every key belongs to one row, with a name and a unit."""

import re

import pytest

from smmix_pl.reporting.metric_names import metric_name, metric_spec, metric_value
from smmix_pl.reporting.metric_specs import METRICS
from smmix_pl.reporting.panels import PANELS, PICTURES, markdown


def test_every_row_is_unique_and_in_a_panel():
    keys = [key for spec in METRICS for key in spec.keys]
    assert len(set(keys)) == len(keys)
    assert {spec.panel for spec in METRICS} <= {*PANELS, ""}
    assert {picture.panel for picture in PICTURES} <= PANELS.keys()


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.key)
def test_a_logged_key_finds_its_own_row(spec):
    for key in spec.keys:
        logged = re.sub(r"\{kind\}", "fog", key)
        logged = re.sub(r"\{\w+\}", "3", logged)
        assert metric_spec(logged) is spec, logged
    assert all(f"`{key}`" in markdown() for key in spec.keys)


@pytest.mark.parametrize(
    ("key", "name", "text"),
    [
        ("test/top1", "top-1", "50.00%"),
        ("val_weights/ece", "ECE", "50.00%"),
        ("test/nll", "NLL", "0.5000"),
        ("occlusion_50", "top-1, 50% occlusion", "50.00%"),
        (
            "occlusion_non_salient_auc_75",
            "top-1, mean over 0 to 75% occlusion, non-salient",
            "50.00%",
        ),
        ("corruption_jpeg_compression_3", "top-1, JPEG compression, severity 3", "50.00%"),
        ("pgd_0.5", "top-1, PGD 0.5/255", "50.00%"),
    ],
)
def test_names_and_values_are_formatted(key, name, text):
    assert metric_name(key) == name
    assert metric_value(key, 0.5) == text


def test_an_unknown_key_has_no_row():
    assert metric_spec("test/new_metric") is None
    assert metric_name("new_metric") == "new metric"
