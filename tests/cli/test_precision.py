"""Recipes use bf16 only where it has instructions; an explicit precision is never changed."""

import warnings

import pytest
import torch

from smmix_pl.cli.precision import bf16_support, resolve_precision

ON_CPU = bf16_support("cpu")[1]


def test_the_processor_is_read_as_torch_reads_it():
    known = torch.cpu.get_capabilities()
    assert any(known.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) == ON_CPU


@pytest.mark.parametrize(("accelerator", "has"), [("cpu", ON_CPU), ("tpu", False)])
def test_the_choice_follows_the_device(accelerator, has):
    expected = "bf16-mixed" if has else "32-true"
    assert resolve_precision(None, accelerator, automatic=True) == expected


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("precision", ["16-mixed", "32-true", 32, "64-true"])
def test_an_explicit_precision_is_kept(precision, automatic):
    with warnings.catch_warnings(action="error"):
        assert resolve_precision(precision, "cpu", automatic) == precision
        assert resolve_precision(None, "cpu", automatic=False) is None


@pytest.mark.skipif(ON_CPU, reason="the processor has bf16")
@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed", "bf16-true"])
def test_explicit_bf16_without_instructions_is_kept_with_a_warning(precision):
    with pytest.warns(UserWarning, match=rf"trainer\.precision={precision}: .*32-true") as warned:
        assert resolve_precision(precision, "cpu", automatic=True) == precision
    assert len(warned) == 1
