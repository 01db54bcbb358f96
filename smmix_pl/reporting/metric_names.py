"""Specs, display names, and values of logged keys, looked up in the table of metrics."""

import re
from collections.abc import Iterable
from functools import cache

from smmix_pl.reporting.metric_rows import MetricSpec
from smmix_pl.reporting.metric_specs import METRICS

KINDS = {
    "lac": "LAC",
    "aps": "APS",
    "occlusion": "random",
    "batch": "same patches in a batch",
    "occlusion_batch": "same patches in a batch",
    "gaussian_noise": "Gaussian noise",
    "gaussian_blur": "Gaussian blur",
    "jpeg_compression": "JPEG compression",
    "non_salient": "non-salient",
}
"""Display names of kinds of occlusion and corruption, other than with spaces for underscores."""


def metric_spec(key: str) -> MetricSpec | None:
    """Return the spec of a logged key, with or without its stage."""
    return _matched(key)[0]


def metric_name(key: str) -> str:
    """Return the display name of a metric or a curve."""
    spec, values = _matched(key)
    if spec is not None:
        named = {name: KINDS.get(value, value.replace("_", " ")) for name, value in values.items()}
        return spec.name.format(**named)
    for family in ("occlusion_", "corruption_"):  # curves
        if key.startswith(family) or key == family.rstrip("_"):
            kind = key.removeprefix(family)
            return KINDS.get(kind, kind.replace("_", " "))
    return key.replace("_", " ")


def metric_value(key: str, value: float) -> str:
    """Format a value: fractions in percent, other units with four decimals."""
    spec, _ = _matched(key)
    is_fraction = spec is None or spec.unit == "fraction"
    return f"{100 * value:.2f}%" if is_fraction else f"{value:.4f}"


@cache
def _matched(key: str) -> tuple[MetricSpec | None, dict[str, str]]:
    """Return the spec of a key and the values of its placeholders."""
    bare = re.sub(r"^(?:val|val_weights|test)/", "", key)
    for spec in sorted(METRICS, key=lambda spec: spec.key.count("{")):
        pattern = re.sub(r"\{(kind)\}", r"(?P<\1>[a-z_0-9]+?)", spec.key)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[\\d.]+)", pattern)
        found = re.fullmatch(pattern, bare)
        if found:
            return spec, found.groupdict()
    return None, {}


def shown_metrics(keys: Iterable[str]) -> list[str]:
    """Return the metrics of a table: without the loss if it is there as NLL."""
    found = list(dict.fromkeys(keys))
    return [key for key in found if key != "loss" or "nll" not in found]


def footnotes(keys: Iterable[str]) -> list[str]:
    """Return what a reader of a table with these metrics has to know."""
    if any(key.startswith("ece_openmixup") for key in keys):
        return [
            "ECE as OpenMixup prints it sorts the accuracies and the confidences of the bins "
            "separately before it compares them. Compare it only with numbers printed by OpenMixup."
        ]
    return []
