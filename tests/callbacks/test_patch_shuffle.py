"""Patch shuffling: every tile is kept, complete and once."""

import pytest
import torch
from helpers.digits import accuracy, complete_test_set, digits, metrics_on_digits, quiet_trainer
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl import InputError
from smmix_pl.callbacks import PatchShuffle
from smmix_pl.robustness.patches import random_order, shuffle_patches

sides = st.integers(1, 5)


def shuffled_by_loop(images, order):
    batch, rows, columns = order.shape
    h, w = images.shape[2] // rows, images.shape[3] // columns
    result = torch.empty_like(images)
    for b in range(batch):
        for r in range(rows):
            for c in range(columns):
                y, x = divmod(int(order[b, r, c]), columns)
                tile = images[b, :, y * h : (y + 1) * h, x * w : (x + 1) * w]
                result[b, :, r * h : (r + 1) * h, c * w : (c + 1) * w] = tile
    return result


@given(sides, sides, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_shuffling_equals_the_loop_and_can_be_inverted(rows, columns, h, w, seed):
    images = torch.arange(2.0 * 3 * rows * h * columns * w).view(2, 3, rows * h, columns * w)
    order = random_order((rows, columns), seed, [4, 5])
    moved = shuffle_patches(images, order)
    assert torch.equal(moved, shuffled_by_loop(images, order))
    inverse = order.flatten(1).argsort(dim=1).view_as(order)
    assert torch.equal(shuffle_patches(moved, inverse), images)


def test_accuracy_is_that_of_the_shuffled_images_for_every_grid_that_divides(tiny_module):
    callback = PatchShuffle(seed=3)
    metrics = metrics_on_digits(tiny_module, callback)
    logged = {name for name in metrics if "shuffle" in name}
    assert logged == {"test/shuffle_2", "test/shuffle_4", "test/shuffle_8"}
    images, classes = complete_test_set()
    for side in (2, 4, 8):  # 14 does not divide 32
        moved = shuffle_patches(images, random_order((side, side), 3, range(359)))
        expected = accuracy(tiny_module, moved, classes)
        assert metrics[f"test/shuffle_{side}"] == pytest.approx(expected, abs=1 / 359)
    curve = callback.result.curves["shuffle"]
    assert curve.x == [0, 2, 4, 8]
    assert curve.y[0] == pytest.approx(metrics["test/top1"])


def test_every_published_grid_divides_224_pixels():
    assert not any(224 % side for side in (2, 4, 8, 14))


@pytest.mark.parametrize("grid", [3, 64, 0, -2])
def test_a_grid_that_does_not_divide_is_rejected(tiny_module, grid):
    with pytest.raises(InputError, match=rf"PatchShuffle\.grids={grid}\b"):
        quiet_trainer(PatchShuffle([2, grid])).test(tiny_module, digits(), verbose=False)


def test_an_empty_list_of_grids_is_rejected():
    with pytest.raises(InputError, match=r"PatchShuffle\.grids=\[\]"):
        PatchShuffle([])
