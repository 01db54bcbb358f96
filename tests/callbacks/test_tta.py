"""Test-time augmentation through the callback and the overlay."""

import pytest
import torch
from helpers.digits import complete_test_set, metrics_on_digits
from torch.nn import functional as F

from smmix_pl.callbacks import TTA


def test_probabilities_of_an_image_and_its_mirror_image_are_averaged(tiny_module):
    metrics = metrics_on_digits(tiny_module, TTA())
    images, classes = complete_test_set()
    with torch.no_grad():
        views = [tiny_module.eval()(view).softmax(1) for view in (images, images.flip(3))]
    mean = (views[0] + views[1]) / 2
    assert metrics["test/tta_top1"] == pytest.approx(
        float((mean.argmax(1) == classes).float().mean())
    )
    nll = F.nll_loss(mean.log(), classes)
    assert metrics["test/tta_nll"] == pytest.approx(float(nll), rel=1e-5)
    assert 0 <= metrics["test/tta_ece"] <= 1
