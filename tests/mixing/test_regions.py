"""Window geometry, compared with slow loops over random shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl import InputError
from smmix_pl.mixing.regions import (
    least_attended,
    most_attended,
    paste,
    patch_size,
    random_corners,
    side_range,
    window_mask,
    window_scores,
)


@st.composite
def windows(draw):
    """Batch, grid, side and a seed; the grid is not square."""
    grid = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    side = draw(st.integers(1, min(grid)))
    return draw(st.integers(1, 5)), grid, side, draw(st.integers(0, 2**32 - 1))


def slow_scores(attention, side):
    rows, columns = attention.shape[1] - side + 1, attention.shape[2] - side + 1
    return torch.stack(
        [
            attention[:, i : i + side, j : j + side].double().sum((1, 2))
            for i in range(rows)
            for j in range(columns)
        ],
        dim=1,
    ).unflatten(1, (rows, columns))


@given(windows())
def test_window_scores_are_sums(case):
    batch, grid, side, seed = case
    attention = torch.rand(batch, *grid, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(window_scores(attention, side), slow_scores(attention, side))


@given(windows())
def test_ties_go_to_the_first_window_row_by_row(case):
    batch, grid, side, seed = case
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randint(0, 2, (batch, *grid), generator=generator).float()
    scores = slow_scores(attention, side).numpy()
    for chosen, best in ((most_attended, np.max), (least_attended, np.min)):
        for image, corner in enumerate(chosen(attention, side).tolist()):
            first = np.argwhere(scores[image] == best(scores[image]))[0]
            assert corner == first.tolist()


@given(windows())
def test_one_side_per_image(case):
    batch, grid, _, seed = case
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(batch, *grid, generator=generator)
    sides = torch.randint(1, min(grid) + 1, (batch,), generator=generator)
    corners = most_attended(attention, sides)
    for image, side in enumerate(sides.tolist()):
        assert torch.equal(corners[image], most_attended(attention[image : image + 1], side)[0])


@given(windows(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.uint8]))
def test_paste_moves_exactly_one_window(case, dtype):
    batch, grid, side, seed = case
    rng = np.random.default_rng(seed)
    patch = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    shape = (batch, 3, grid[0] * patch[0], grid[1] * patch[1])
    target, source = (torch.from_numpy(rng.integers(0, 99, shape)).to(dtype) for _ in range(2))
    if seed % 2:
        target = target.to(memory_format=torch.channels_last)
    before = target.clone()
    to, origin = (random_corners(batch, grid, side, rng) for _ in range(2))

    expected = target.clone()
    height, width = side * patch[0], side * patch[1]
    for image in range(batch):
        (i, j), (k, m) = to[image] * torch.tensor(patch), origin[image] * torch.tensor(patch)
        expected[image, :, i : i + height, j : j + width] = source[
            image, :, k : k + height, m : m + width
        ]
    pasted = paste(target, source, to, origin, side, grid)
    assert torch.equal(pasted, expected)
    assert torch.equal(target, before)
    assert pasted.dtype == dtype


@given(windows())
def test_window_mask_marks_the_window(case):
    batch, grid, side, seed = case
    corners = random_corners(batch, grid, side, np.random.default_rng(seed))
    mask = window_mask(corners, side, grid).unflatten(1, grid)
    for image, (i, j) in enumerate(corners.tolist()):
        assert mask[image, i : i + side, j : j + side].all()
    assert (mask.sum((1, 2)) == side**2).all()


@given(windows())
def test_random_corners_keep_windows_inside(case):
    batch, grid, side, seed = case
    corners = random_corners(batch, grid, side, np.random.default_rng(seed))
    assert (corners >= 0).all()
    assert (corners + side <= torch.tensor(grid)).all()


def test_random_corners_reach_all_places():
    corners = random_corners(2000, (4, 5), 3, np.random.default_rng(0))
    assert {tuple(corner) for corner in corners.tolist()} == {
        (i, j) for i in range(2) for j in range(3)
    }


@pytest.mark.parametrize(
    ("grid", "expected"),
    [((14, 14), (3, 10)), ((7, 7), (1, 5)), ((8, 8), (2, 6)), ((2, 9), (1, 1)), ((3, 3), (1, 2))],
)
def test_side_range_of_the_paper(grid, expected):
    assert side_range(grid, 0.25, 0.75) == expected


def test_one_row_of_tokens_is_rejected():
    with pytest.raises(InputError, match=r"data.image_size.*1 x 9"):
        side_range((1, 9), 0.25, 0.75)


def test_a_grid_that_does_not_divide_the_image_is_rejected():
    with pytest.raises(InputError, match=r"30 x 28.*7 x 7"):
        patch_size(torch.zeros(1, 3, 30, 28), (7, 7))
