"""Localization metrics, compared with direct implementations of their protocols."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from smmix_pl.metrics import BoxAccuracy, MaskJaccard
from smmix_pl.metrics.box_overlap import IOUS
from smmix_pl.metrics.mask_overlap import mass_mask

SEEDS = st.integers(0, 10_000)


def kept_tokens(values, mass):
    """Take tokens from the largest down, until they hold the mass."""
    kept, held = np.zeros(values.size, dtype=bool), 0.0
    for index in np.argsort(values.ravel())[::-1]:
        if held >= mass * values.sum():
            break
        kept[index] = True
        held += values.ravel()[index]
    return kept.reshape(values.shape)


def iou(a, b):
    """Return the IoU of two boxes."""
    sides = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    both = sides[0] * sides[1]
    return both / (sum(areas) - both)


def region_boxes(mask, corners):
    """Return box and size of each connected region."""
    regions, count = label(mask, np.ones((3, 3)) if corners else None)
    boxes = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(regions == number)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        boxes.append((box, len(rows)))
    return boxes


@given(SEEDS, st.sampled_from([0.3, 0.6, 0.9]))
def test_tokens_of_the_largest_values_hold_the_mass(seed, mass):
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    for one, mask in zip(maps, mass_mask(maps, mass), strict=True):
        assert (mask.numpy() == kept_tokens(one.numpy(), mass)).all()


@given(SEEDS)
def test_jaccard_equals_a_direct_implementation(seed):
    rng = np.random.default_rng(seed)
    metric = MaskJaccard(0.9, 255)
    best_head, mean_map = [], []
    for _ in range(3):
        maps = rng.random((2, 3, 4))
        truth = rng.choice([0, 1, 2, 255], (12, 16), p=[0.5, 0.2, 0.2, 0.1]).astype(np.uint8)
        metric.update(torch.tensor(maps), torch.tensor(truth))
        masks = [kept_tokens(one, 0.9).repeat(4, 0).repeat(4, 1) for one in (*maps, maps.mean(0))]
        rows = []
        for number in set(truth.ravel().tolist()) - {0, 255}:
            pairs = [
                (mask & (truth == number), (mask | (truth == number)) & (truth != 255))
                for mask in masks
            ]
            rows.append([both.sum() / either.sum() for both, either in pairs])
        best_head.append(np.mean([max(row[:-1]) for row in rows]))
        mean_map.append(np.mean([row[-1] for row in rows]))
    found = metric.compute()
    assert found["best_head"] == pytest.approx(np.mean(best_head), abs=1e-6)
    assert found["mean_map"] == pytest.approx(np.mean(mean_map), abs=1e-6)


def test_void_and_images_without_objects_do_not_count():
    metric = MaskJaccard(1.0, 255)
    maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    metric.update(maps, torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8))
    metric.update(maps, torch.zeros(2, 2, dtype=torch.uint8))
    assert metric.compute() == {"best_head": 1.0, "mean_map": 1.0}
    metric.update(maps, torch.tensor([[255, 1], [0, 0]], dtype=torch.uint8))
    assert metric.compute()["mean_map"] == 0.5


@given(SEEDS)
def test_box_accuracy_equals_a_direct_implementation(seed):
    rng = np.random.default_rng(seed)
    thresholds = 10
    metric = BoxAccuracy(0.6, thresholds)
    correct, located = np.zeros((len(IOUS), thresholds)), 0
    for _ in range(4):
        attention = rng.random((4, 4)).astype(np.float32)
        corner = rng.integers(0, 8, (2, 2))
        boxes = np.concatenate((corner, corner + rng.integers(4, 9, (2, 2))), axis=1)
        metric.update(torch.tensor(attention), torch.tensor(boxes), (4, 4))
        # at the size of the grid, the score map is the attention itself
        scaled = (attention - attention.min()) / (attention.max() - attention.min())
        for t in range(thresholds):
            found = region_boxes(scaled > np.float32(t / thresholds), corners=True)
            best = max(iou(box, true) for box, _ in found for true in boxes)
            correct[:, t] += best >= np.array(IOUS)
        regions = region_boxes(kept_tokens(attention, 0.6), corners=False)
        box = max(regions, key=lambda one: one[1])[0]
        located += max(iou(box, true) for true in boxes) >= 0.5
    scores = metric.compute()
    assert scores.corloc == pytest.approx(located / 4)
    assert list(scores.max_box_acc.values()) == pytest.approx((correct.max(1) / 4).tolist())
    assert scores.max_box_acc_v2 == pytest.approx(correct.max(1).mean() / 4)


def test_boxes_are_compared_in_pixels_of_the_image():
    """A map that is high on an object of 10 x 10 pixels in a corner of 40 x 80 pixels finds it."""
    attention = torch.full((4, 8), 1e-3)
    attention[0, 7] = 1
    metric = BoxAccuracy(0.6, 100)
    metric.update(attention, torch.tensor([[70.0, 0, 80, 10]]), (40, 80))
    scores = metric.compute()
    assert scores.corloc == 1
    assert scores.max_box_acc[0.7] == 1
    metric.update(attention, torch.tensor([[0.0, 30, 10, 40]]), (40, 80))
    assert metric.compute().corloc == 0.5
