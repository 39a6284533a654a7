"""Parts of one set on the same draws: what the interval of a mean over splits is made of."""

import numpy as np
import pytest

from hemaml.ops.resampling import group_indices, mean_intervals, resampled_scores

GROUPS = [f"g{i // 3}" for i in range(30)]
VALUES = np.random.default_rng(0).random(30)
PARTS = np.arange(0, 12), np.arange(6, 30, 2), np.array([29, 28])
"""They share images; the last has one group, which many draws lack."""


def mean_of(places):
    return lambda weights_NR: {"mean": VALUES[places] @ weights_NR / weights_NR.sum(axis=0)}


def naive(num, seed):
    """Means of the parts in each draw of whole groups, images as often as their group."""
    draws = np.random.default_rng(seed).integers(0, 10, (num, 10))
    rows = []
    for draw in draws:
        chosen = [[i for g in draw for i in part if i // 3 == g] for part in PARTS]
        rows.append([VALUES[part].mean() if part else np.nan for part in chosen])
    return np.array(rows)


def test_parts_are_scored_on_the_same_draws_of_the_whole_set():
    group_M = group_indices(GROUPS, 30)
    found = [resampled_scores(mean_of(p), group_M, p, num=300, seed=4) for p in PARTS]
    expected = naive(300, 4)
    assert np.isnan(expected[:, 2]).sum() > 50
    for part, column in zip(found, expected.T, strict=True):
        np.testing.assert_allclose(part["mean"], column)
    wanted = np.nanpercentile(expected[:, :2].mean(axis=1), [2.5, 97.5])
    assert mean_intervals(found[:2])["mean"] == pytest.approx(tuple(wanted))


def test_parts_of_one_group_have_no_interval_of_their_mean():
    """Draws that have each of them once are the set itself: an interval of width 0."""
    groups = [f"p{i // 6}" for i in range(30)]
    group_M = group_indices(groups, 30)
    parts = [np.arange(start, start + 6) for start in range(0, 30, 6)]
    found = [resampled_scores(mean_of(p), group_M, p, num=1000, seed=0) for p in parts]
    assert np.isnan(mean_intervals(found)["mean"]).all()


def test_a_score_that_a_part_lacks_has_no_interval():
    assert mean_intervals([{"a": VALUES, "b": VALUES}, {"a": VALUES}]).keys() == {"a"}
