"""The cheapest labeling of a grid with ordered levels, by one minimum cut (Ishikawa, 2003).

B grids, N cells per side, S = N * N cells, L levels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

Integers = NDArray[np.int64]
UNCUT = 2**29
"""Capacity of edges that are never cut: above all costs of a cell, and far from int32's end."""


def cheapest_levels(unary: Integers, down: Integers, across: Integers) -> Integers:
    """Minimize the sum of all unary costs and of `weight * (a - b)^2 / (L - 1)^2` over neighbors.

    The costs of neighbors are convex in the difference of their levels a and b, so that a minimum
    cut finds the minimum itself. Moves between pairs of levels (alpha-beta swap, expansion) find it
    for two levels, and may stop above it for more. Of several minima, the one with the lowest
    levels is returned.

    Args:
        unary: Cost of each level of each cell, `(B, N, N, L)`.
        down: Non-negative weights of a cell and the next one below, `(B, N - 1, N)`.
        across: Non-negative weights of a cell and the next one to the right, `(B, N, N - 1)`.

    Returns:
        Levels, `(B, N, N)`, from 0 to L - 1.
    """
    grids, side, _, levels = unary.shape
    steps, sites = levels - 1, np.arange(side * side).reshape(side, side)
    first = np.concatenate([sites[:-1].ravel(), sites[:, :-1].ravel()])
    second = np.concatenate([sites[1:].ravel(), sites[:, 1:].ravel()])
    weights = np.concatenate([down.reshape(grids, -1), across.reshape(grids, -1)], axis=1)
    found = [
        _cut(cost.reshape(-1, levels), first, second, weight, steps)
        for cost, weight in zip(unary, weights, strict=True)
    ]
    return np.stack(found).reshape(grids, side, side)


def _cut(
    unary: Integers, first: Integers, second: Integers, weights: Integers, steps: int
) -> Integers:
    """Return the level of each cell of one grid, `(S,)`.

    A cell is a chain of `steps` nodes from source to sink; its level is the number of nodes on the
    side of the source. In terms of these nodes, (a - b)^2 is the sum of |difference| over all pairs
    of a node of one cell and a node of the other, plus a (a - steps) + b (b - steps).
    """
    cells, levels = len(unary), np.arange(steps + 1)
    incident = np.zeros(cells, np.int64)
    np.add.at(incident, first, weights)
    np.add.at(incident, second, weights)
    costs = unary * steps**2 + incident[:, None] * (levels * (levels - steps))
    costs -= costs.min(axis=1, keepdims=True)

    nodes = 2 + np.arange(cells * steps).reshape(cells, steps)  # 0 is the source, 1 the sink
    starts = np.concatenate([np.zeros((cells, 1), np.int64), nodes], axis=1)
    ends = np.concatenate([nodes, np.ones((cells, 1), np.int64)], axis=1)
    upper, lower = nodes[:, 1:], nodes[:, :-1]
    edges = [(starts, ends, costs), (upper, lower, np.full_like(upper, UNCUT))]
    for one in range(steps):
        for other in range(steps):
            pair = nodes[first, one], nodes[second, other]
            edges += [(*pair, weights), (*pair[::-1], weights)]
    rows, columns, capacities = (
        np.concatenate([edge[part].ravel() for edge in edges]) for part in range(3)
    )
    size = 2 + nodes.size
    graph = csr_array((capacities.astype(np.int32), (rows, columns)), shape=(size, size))
    residual = graph - maximum_flow(graph, 0, 1).flow
    residual.eliminate_zeros()
    reached = np.zeros(size, bool)
    reached[breadth_first_order(residual, 0, return_predecessors=False)] = True
    return reached[nodes].sum(axis=1)
