"""Nearest neighbours by cosine similarity: exact, in blocks, the same in any batch and order.

Similarities come from float32 products, whose last bits depend on how rows are batched. Wherever
those bits could decide who is a neighbour, or in which order, the similarities are taken again in
float64, row by row, and equal ones are ordered by index. So lists for a small k are the beginnings
of lists for a larger one.

N rows of the bank, Q queries, F features, k neighbours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hemaml.core.errors import ConfigError
from hemaml.core.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array

EXACT_UP_TO = 100_000
"""Rows up to which a graph is searched exactly: minutes on two cores, growing with the square."""
BLOCK_BYTES = 1 << 26
"""Of the similarities that are held at once, whatever N is."""
NEAR = 1e-5
"""Far above the rounding of a float32 product of unit vectors."""
SPARE = 16
"""Candidates beyond k, so that close calls at the end are settled among these."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest rows of a bank for each of Q queries, nearest first.

    Attributes:
        indices: Q x k rows of the bank, all different within a query.
        similarities: Q x k cosines, descending.
    """

    indices: Int64Array
    similarities: Float32Array

    def first(self, k: int) -> "Neighbours":
        """The k nearest of these."""
        assert 1 <= k <= self.indices.shape[1], (k, self.indices.shape)
        return Neighbours(self.indices[:, :k], self.similarities[:, :k])


def unit_rows(points_NF: Float32Array) -> Float32Array:
    """Rows scaled to length 1; each depends on itself alone. Rows of zeros stay as they are."""
    lengths = np.sqrt(np.square(points_NF, dtype=np.float64).sum(axis=1))
    scaled: Float32Array = points_NF / np.maximum(lengths, 1e-12).astype(np.float32)[:, None]
    return scaled


def knn_graph(unit_NF: Float32Array, k: int, *, exact_up_to: int = EXACT_UP_TO) -> Neighbours:
    """The k nearest other rows of each row: every node has k edges out, none to itself.

    Args:
        unit_NF: Rows of `unit_rows`.
        k: Below N.
        exact_up_to: For more rows the search is approximate, by nearest-neighbour descent from a
            fixed seed.

    Raises:
        ConfigError: k is N or more, or the approximate search is not installed.
    """
    _check_k(k, len(unit_NF) - 1, "a node has no edge to itself")
    if len(unit_NF) > exact_up_to:
        return _approximate(unit_NF, k)
    return _searched(unit_NF, unit_NF, k, without_self=True)


def nearest(queries_QF: Float32Array, bank_NF: Float32Array, k: int) -> Neighbours:
    """The k rows of a bank that are nearest to each query; exact for any size of the bank.

    Args:
        queries_QF: Rows of `unit_rows`.
        bank_NF: Rows of `unit_rows`.
        k: At most N.

    Raises:
        ConfigError: k is above N.
    """
    _check_k(k, len(bank_NF), "the bank has no more rows")
    return _searched(queries_QF, bank_NF, k, without_self=False)


def undirected(indices_Nk: Int64Array) -> tuple[Int32Array, Int32Array]:
    """Nodes joined where either has the other among its k nearest, as lists of neighbours.

    Returns:
        N + 1 starts, and the neighbours of all nodes: those of node i, ascending, from its start to
        the next.
    """
    from scipy.sparse import csr_array

    num, k = indices_Nk.shape
    starts = np.arange(0, num * k + 1, k)
    edges = np.ones(num * k, dtype=np.int8)
    one_way = csr_array((edges, indices_Nk.reshape(-1), starts), shape=(num, num))
    both = (one_way + one_way.T).tocsr()
    both.sort_indices()
    return both.indptr.astype(np.int32), both.indices.astype(np.int32)


def _check_k(k: int, most: int, reason: str) -> None:
    if not 1 <= k <= most:
        raise ConfigError(
            f"`1 <= k <= {most}` must hold, since {reason}, but got k={k}. "
            "Lower `k`, or use more images."
        )


def _searched(
    queries_QF: Float32Array, bank_NF: Float32Array, k: int, *, without_self: bool
) -> Neighbours:
    num = len(queries_QF)
    indices = np.empty((num, k), dtype=np.int64)
    similarities = np.empty((num, k), dtype=np.float32)
    bank = torch.from_numpy(bank_NF)
    size = min(max(BLOCK_BYTES // (4 * len(bank_NF)), 1), max(num, 1))
    buffer = torch.empty(size, len(bank_NF))
    for first in range(0, num, size):
        block = queries_QF[first : first + size]
        found = torch.mm(torch.from_numpy(block), bank.T, out=buffer[: len(block)])
        if without_self:
            found.diagonal(first).fill_(-torch.inf)
        rows = slice(first, first + len(block))
        indices[rows], similarities[rows] = _best(found, block, bank_NF, k)
    return Neighbours(indices, similarities)


def _best(
    found_QN: torch.Tensor, queries_QF: Float32Array, bank_NF: Float32Array, k: int
) -> tuple[Int64Array, Float32Array]:
    """The k best of a block, close calls settled."""
    tops, where = (t.numpy() for t in found_QN.topk(min(k + SPARE, found_QN.shape[1]), dim=1))
    indices, similarities = where[:, :k].copy(), tops[:, :k].copy()
    gaps = tops[:, :k] - _padded(tops, k + 1)[:, 1:]
    close = np.flatnonzero((gaps < NEAR).any(axis=1))
    cut = _padded(tops, tops.shape[1] + (tops.shape[1] == found_QN.shape[1]))[:, -1]
    crowded = cut > tops[:, k - 1] - NEAR
    plain = close[~crowded[close]]
    if len(plain):
        indices[plain], similarities[plain] = _settled(
            queries_QF[plain], bank_NF, where[plain], k, allowed=tops[plain] > -np.inf
        )
    for row in np.flatnonzero(crowded):
        many = np.flatnonzero(found_QN[row].numpy() > tops[row, k - 1] - NEAR)[None]
        indices[row], similarities[row] = _settled(queries_QF[[row]], bank_NF, many, k)
    return indices, similarities


def _padded(tops: Float32Array, width: int) -> Float32Array:
    """The first columns, and what is beyond the last one: -inf."""
    missing = max(width - tops.shape[1], 0)
    return np.pad(tops, ((0, 0), (0, missing)), constant_values=-np.inf)[:, :width]


def _settled(
    queries_QF: Float32Array,
    bank_NF: Float32Array,
    candidates_QM: Int64Array,
    k: int,
    *,
    allowed: BoolArray | None = None,
) -> tuple[Int64Array, Float32Array]:
    """The k best of M candidates in float64, equal ones by index."""
    values = _cosines(queries_QF, bank_NF, candidates_QM)
    if allowed is not None:
        values[~allowed] = -np.inf
    order = np.lexsort((candidates_QM, -values), axis=1)[:, :k]
    best = np.take_along_axis(values, order, axis=1).astype(np.float32)
    return np.take_along_axis(candidates_QM, order, axis=1), best


def _cosines(
    queries_QF: Float32Array, bank_NF: Float32Array, candidates_QM: Int64Array
) -> Float64Array:
    """Q x M in float64, each from its own two rows alone; a few queries at a time."""
    values = np.empty(candidates_QM.shape, dtype=np.float64)
    num, width = candidates_QM.shape
    step = max(BLOCK_BYTES // (8 * width * bank_NF.shape[1]), 1)
    for first in range(0, num, step):
        rows = slice(first, first + step)
        chosen = bank_NF[candidates_QM[rows]].astype(np.float64)
        values[rows] = (chosen * queries_QF[rows, None]).sum(axis=2)
    return values


def _approximate(unit_NF: Float32Array, k: int) -> Neighbours:
    candidates = _descent(unit_NF, k + 1)
    own = np.arange(len(unit_NF))[:, None]
    allowed = (candidates != own) & (candidates >= 0)
    short = np.flatnonzero(allowed.sum(axis=1) < k)
    candidates = np.where(allowed, candidates, 0)
    indices, similarities = _settled(unit_NF, unit_NF, candidates, k, allowed=allowed)
    if len(short):  # rare: the descent ended before these rows had all of their neighbours
        again = nearest(unit_NF[short], unit_NF, k + 1)
        others = again.indices != short[:, None]
        indices[short], similarities[short] = _settled(
            unit_NF[short], unit_NF, again.indices, k, allowed=others
        )
    return Neighbours(indices, similarities)


def _descent(unit_NF: Float32Array, k: int) -> Int64Array:
    try:
        from pynndescent import NNDescent
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a graph of more than {EXACT_UP_TO} images is searched approximately, which needs "
            f"pynndescent, but it is not installed and there are {len(unit_NF)} images. "
            "Run: pip install pynndescent."
        ) from error
    index: Any = NNDescent(unit_NF, metric="dot", n_neighbors=k, random_state=0)
    found: Int64Array = index.neighbor_graph[0].astype(np.int64)
    return found
