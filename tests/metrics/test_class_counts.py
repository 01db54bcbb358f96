"""Confusion matrix compared with torchmetrics."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from smmix_pl.metrics import ClassCounts


@given(st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(["float32", "bfloat16"]))
def test_counts_equal_the_confusion_matrix(num_classes, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(50, num_classes, generator=generator)).to(getattr(torch, dtype))
    labels = torch.randint(num_classes, (50,), generator=generator)
    counts = ClassCounts(num_classes)
    for part in (slice(0, 31), slice(31, 50)):
        counts.update(logits[part], labels[part])
    predicted = logits.float().argmax(dim=1)
    expected = multiclass_confusion_matrix(predicted, labels, num_classes)
    assert torch.equal(counts.compute(), expected.int())
