"""What figures compute: fronts, axes and smoothed means, with theory as the oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemaml.core.space import Space
from hemaml.report.figures import front
from hemaml.report.parameters import Axis, smoothed

SPACE = Space.model_validate(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "k": {"type": "int", "low": 2, "high": 10},
        "conv": {"type": "categorical", "choices": ["gin", "gcn", None]},
        "fixed": {"type": "float", "low": 3, "high": 3},
    }
)
AXES = {name: Axis(name, dimension) for name, dimension in SPACE.root.items()}
POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(POINTS)
def test_a_front_has_just_the_points_that_none_beats(points):
    costs, values = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    chosen = {(costs[i], values[i]) for i in front(costs, values)}
    expected = {
        (c, v)
        for c, v in points
        if not any(a <= c and b >= v and (a, b) != (c, v) for a, b in points)
    }
    assert chosen == expected


def test_axes_place_values_and_name_their_ends():
    assert AXES["lr"].ends == pytest.approx((-4, -2)) and AXES["lr"].ticks()[1][0] == "0.0001"
    assert AXES["k"].place(7) == 7.0
    assert AXES["conv"].place(None) == 2.0 and AXES["conv"].ticks()[1] == ["gin", "gcn", "None"]
    assert AXES["fixed"].ends == (3.0, 3.0)


def test_a_contour_is_the_mean_of_what_is_near_and_blank_elsewhere():
    lr, k = AXES["lr"], AXES["k"]
    x, y = np.array([-4.0, -4.0, -2.0]), np.array([2.0, 2.0, 10.0])
    z = smoothed(lr, k, x, y, np.array([0.4, 0.6, 0.9]))
    assert z[0, 0] == pytest.approx(0.5) and z[-1, -1] == pytest.approx(0.9)
    assert math.isnan(z[-1, 0]) and math.isnan(z[0, -1])
    assert np.nanmin(z) >= 0.4 - 1e-9 and np.nanmax(z) <= 0.9 + 1e-9


def test_a_contour_does_not_mix_choices():
    conv, k = AXES["conv"], AXES["k"]
    z = smoothed(conv, k, np.array([0.0, 1.0]), np.array([5.0, 5.0]), np.array([0.2, 0.8]))
    near = int(np.argmin(np.abs(k.grid - 5)))
    assert z[near, 0] == pytest.approx(0.2) and z[near, 1] == pytest.approx(0.8)
    assert math.isnan(z[near, 2])
