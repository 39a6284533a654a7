"""What the tests of paired comparisons share."""

from dataclasses import replace

import numpy as np
import pytest


def close(value):
    return pytest.approx(value, abs=1e-9, nan_ok=True)


def swapped(comparison):
    """The same of champion and candidate, equal up to rounding."""
    return replace(
        comparison,
        difference=close(-comparison.difference),
        low=close(-comparison.high),
        high=close(-comparison.low),
        effect=close(-comparison.effect),
        p=close(comparison.p),
    )


def promoted_share(draw, num=1000):
    """How often a candidate is better beyond noise; `draw` makes a comparison from a generator."""
    found = [draw(np.random.default_rng(seed)) for seed in range(num)]
    return np.mean([not got.within_noise and got.difference > 0 for got in found])
