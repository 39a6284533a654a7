"""Importance against scores that are known to depend on one parameter."""

import numpy as np
import pytest

from hemaml.core.space import Space
from hemaml.engines.importance import importances

SPACE = Space.model_validate(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "width": {"type": "int", "low": 1, "high": 8, "when": {"kind": "a"}},
    }
)


def drawn(num, seed=0):
    rng = np.random.default_rng(seed)
    points = []
    for index in range(num):
        point = {"lr": float(10 ** rng.uniform(-4, -1)), "kind": "ab"[index % 2]}
        points.append(point | ({"width": int(rng.integers(1, 9))} if index % 2 == 0 else {}))
    return points


@pytest.mark.parametrize("num", [60, 900])
def test_what_decides_the_score_has_the_largest_share(num):
    points = drawn(num)
    scores = -np.abs(np.log10([point["lr"] for point in points]) + 2)
    found = importances(points, scores, SPACE, resamples=10)
    assert set(found) == {"lr", "kind", "width"}
    assert sum(importance.share for importance in found.values()) == pytest.approx(1)
    assert found["lr"].share > 0.8
    assert all(0 <= i.low <= i.high <= 1 for i in found.values())


def test_with_few_trials_the_interval_is_wide_and_with_many_narrow():
    widths = []
    for num in (12, 400):
        points = drawn(num)
        scores = -np.abs(np.log10([point["lr"] for point in points]) + 2)
        lr = importances(points, scores, SPACE, resamples=30)["lr"]
        widths.append(lr.high - lr.low)
    assert widths[0] > 2 * widths[1]


def test_without_resamples_the_interval_is_a_point():
    found = importances(drawn(40), np.arange(40.0), SPACE, resamples=0)
    assert all(i.low == i.share == i.high for i in found.values())


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [1.0] * 20])
def test_too_few_trials_or_equal_scores_have_none(values):
    assert importances(drawn(len(values)), np.array(values), SPACE) == {}
