"""Neighbours against a search of all pairs in double precision; graphs by their definition."""

import numpy as np
import pytest

from hemaml.core.errors import ConfigError
from hemaml.ops import knn_graph as module
from hemaml.ops.knn_graph import knn_graph, nearest, undirected, unit_rows


def rows(num=120, dim=16, seed=0):
    """Points with copies among them, so that there are ties."""
    points = np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)
    points[num // 2 : num // 2 + 10] = points[:10]
    return unit_rows(points)


def by_all_pairs(queries, bank, k, *, without_self):
    cosines = (queries[:, None].astype(np.float64) * bank[None].astype(np.float64)).sum(axis=2)
    if without_self:
        np.fill_diagonal(cosines, -np.inf)
    order = np.lexsort((np.broadcast_to(np.arange(len(bank)), cosines.shape), -cosines), axis=1)
    return order[:, :k]


@pytest.mark.parametrize("k", [1, 7, 119])
def test_the_graph_has_each_rows_k_nearest_others_ties_by_index(k):
    unit = rows()
    found = knn_graph(unit, k)
    assert np.array_equal(found.indices, by_all_pairs(unit, unit, k, without_self=True))
    assert not (found.indices == np.arange(len(unit))[:, None]).any()
    assert (np.diff(found.similarities, axis=1) <= 0).all()


def test_a_smaller_k_is_the_beginning_of_a_larger_one():
    unit = rows()
    large = knn_graph(unit, 40)
    for k in (1, 5, 39):
        assert np.array_equal(large.first(k).indices, knn_graph(unit, k).indices)


def test_blocks_and_batches_do_not_show(monkeypatch):
    unit, queries = rows(), rows(seed=1)[:30]
    graph, found = knn_graph(unit, 9), nearest(queries, unit, 9)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * len(unit) * 7)
    assert np.array_equal(knn_graph(unit, 9).indices, graph.indices)
    assert np.array_equal(nearest(queries, unit, 9).indices, found.indices)
    for query in (0, 17):
        alone = nearest(queries[[query]], unit, 9)
        assert np.array_equal(alone.indices[0], found.indices[query])


def test_a_query_may_find_itself_in_the_bank():
    unit = rows()
    assert np.array_equal(nearest(unit[80:], unit, 1).indices[:, 0], np.arange(80, 120))


def test_rows_have_length_one_but_for_rows_of_zeros():
    points = np.array([[3, 4], [0, 0], [1e-3, 0]], dtype=np.float32)
    np.testing.assert_allclose(unit_rows(points), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("k", [0, 120])
def test_there_must_be_enough_others(k):
    with pytest.raises(ConfigError, match=rf"1 <= k <= 119.*got k={k}"):
        knn_graph(rows(), k)
    if k:
        assert nearest(rows(), rows(), k).indices.shape == (120, 120)


@pytest.mark.slow  # the descent compiles for half a minute
def test_beyond_the_stated_size_the_search_is_approximate():
    unit = unit_rows(np.random.default_rng(0).standard_normal((900, 8)).astype(np.float32))
    exact, found = knn_graph(unit, 8), knn_graph(unit, 8, exact_up_to=500)
    shared = [len(set(a) & set(b)) / 8 for a, b in zip(exact.indices, found.indices, strict=True)]
    assert np.mean(shared) > 0.95
    assert all(len(set(row)) == 8 and i not in row for i, row in enumerate(found.indices))
    again = knn_graph(unit, 8, exact_up_to=500)
    assert np.array_equal(found.indices, again.indices)


def test_an_undirected_graph_joins_both_ends():
    indices = knn_graph(rows(40), 3).indices
    starts, neighbours = undirected(indices)
    lists = [neighbours[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]
    for node, found in enumerate(lists):
        theirs = {other for other, row in enumerate(indices) if node in row}
        assert found == sorted(theirs | set(indices[node].tolist()))
