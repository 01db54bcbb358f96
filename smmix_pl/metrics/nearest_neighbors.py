"""Weighted k-nearest-neighbor classification, as in DINO (Caron et al., 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def knn_votes(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
) -> list[Tensor]:
    """Compute the votes of the k nearest neighbors for each class.

    Features are compared by their cosine s, and a neighbor votes with exp(s / temperature).

    Args:
        queries: L2-normalized features to classify, `(B, D)`.
        bank: L2-normalized features with known classes, `(M, D)`.
        labels: Their classes, `(M,)`.
        ks: Numbers of neighbors, each at most M.
        temperature: Divides the cosine; above 0.
        num_classes: K.

    Returns:
        Votes `(B, K)` for each number of neighbors, divided by that of a neighbor with cosine 1.
    """
    similarity, nearest = (queries @ bank.T).topk(max(ks), dim=1)
    weights = ((similarity - 1) / temperature).exp()
    classes = labels[nearest]
    votes = []
    for k in ks:
        zeros = torch.zeros(len(queries), num_classes, device=queries.device, dtype=weights.dtype)
        votes.append(zeros.scatter_add(1, classes[:, :k], weights[:, :k]))
    return votes
