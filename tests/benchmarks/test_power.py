"""How often a true gain is found: Dice of 40 images, Wilcoxon's test as in a promotion.

    pytest tests/benchmarks/test_power.py --benchmark-only -s

The spread is the standard deviation of the paired difference between images (or between means of
groups). What a data set has is in the run of a comparison: interval, effect and number of images.
"""

import numpy as np
import pytest

from hemaml.ops.paired import compare_means

SPREADS = (0.005, 0.01, 0.02, 0.03, 0.05)
GAIN = 0.01


def power(spread, *, gain=GAIN, num=40, pairs=1000):
    """Share of pairs of models in which a candidate with this gain is better beyond noise."""
    found = 0
    for seed in range(pairs):
        rng = np.random.default_rng(seed)
        champion = rng.normal(0.85, 0.05, num)
        got = compare_means(champion + rng.normal(gain, spread, num), champion, num=2)
        found += not got.within_noise and got.difference > 0
    return found / pairs


def test_power(benchmark):
    """The table; a gain of half a deviation must be found in four of five cases."""

    def table():
        return {spread: [power(spread, num=num) for num in (8, 40, 100)] for spread in SPREADS}

    rows = benchmark.pedantic(table, rounds=1)
    print(f"\npower for a gain of {GAIN} Dice at p < .05")
    print("  spread       n = 8      n = 40     n = 100")
    for spread, shares in rows.items():
        print(f"  {spread:<8}" + "".join(f"{share:10.1%} " for share in shares))
    assert rows[0.02][1] > 0.8
    assert rows[0.05][1] < 0.5


@pytest.mark.parametrize("num", [40, 200])
def test_speed(benchmark, num):
    one, other = np.random.default_rng(0).normal(0.85, 0.05, (2, num))
    benchmark(compare_means, one, other)
