"""How often a true gain is found, and models that are alike are called better, as in a promotion.

    pytest tests/benchmarks/test_power.py -s

Dice of 40 images, Wilcoxon's test, the verdict of `judge`. `MEASURED` are differences of two real
models; the table below it has what other spreads give (standard deviation of the paired difference
between images, or between means of groups).
"""

import numpy as np
import pytest

from hemaml.core.gates import Gate
from hemaml.core.judge import Evidence, Side, judge
from hemaml.ops.paired import compare_means

MEASURED = np.array([
    -0.0389, -0.0125, -0.006, -0.0047, -0.0039, -0.0035, -0.003, -0.0029, -0.0027, -0.0024, -0.002,
    -0.0018, -0.0016, -0.0012, -0.001, -0.0007, 0.0002, 0.0008, 0.0009, 0.0013, 0.0014, 0.0021,
    0.0025, 0.0026, 0.0027, 0.0033, 0.0036, 0.0045, 0.0047, 0.0048, 0.0051, 0.0058, 0.0064, 0.0066,
    0.0071, 0.0075, 0.0138, 0.0364,
])  # fmt: skip
"""Dice (mean of cytoplasm and nucleus) of two runs of `wbc_segmentation/smgnn.yaml` with 20 epochs,
seeds 2 and 1, image by image, on the 38 images of the validation part of data set 1."""
SPREADS = (0.005, 0.01, 0.02, 0.03, 0.05)
GAIN, NUM, PAIRS = 0.01, 40, 1000
GATES = {"dice": Gate(better=True)}


def promoted(differences):
    """Whether a candidate with these differences to the champion is better by its gate."""
    champion = np.random.default_rng(0).normal(0.85, 0.05, len(differences))
    compared = compare_means(champion + differences, champion, num=100)
    sides = Side("b", {"dice": 0.95}), Side("a", {"dice": 0.94})
    return judge(GATES, Evidence("dice", frozenset(), *sides, {"dice": compared})).passed


def share(draw):
    return np.mean([promoted(draw(np.random.default_rng(seed))) for seed in range(PAIRS)])


def measured(gain):
    """Draws of differences as measured, around a true gain.

    The sign of each is a coin's, as two models that are alike may change places.
    """
    sizes = np.abs(MEASURED)
    return lambda rng: gain + rng.choice(sizes, NUM) * rng.choice([-1, 1], NUM)


def test_as_measured(benchmark):
    """False promotions, and the power, at the spread of data set 1."""

    def shares():
        return share(measured(0.0)), share(measured(GAIN)), share(measured(GAIN / 2))

    false, power, half = benchmark.pedantic(shares, rounds=1)
    spread = MEASURED.std(ddof=1)
    print(f"\n{NUM} images, {PAIRS} pairs, differences as measured (deviation {spread:.4f})")
    print(f"  alike: better in {false:.1%}")
    print(f"  true gain {GAIN}: better in {power:.1%}; true gain {GAIN / 2}: {half:.1%}")
    assert false <= 0.05


def test_power(benchmark):
    """The table; a gain of half a deviation must be found in four of five cases."""

    def power(spread, num):
        return share(lambda rng: rng.normal(GAIN, spread, num))

    def table():
        return {spread: [power(spread, num) for num in (8, NUM, 100)] for spread in SPREADS}

    rows = benchmark.pedantic(table, rounds=1)
    print(f"\npower for a gain of {GAIN} Dice at p < .05, normal differences")
    print("  spread       n = 8      n = 40     n = 100")
    for spread, shares in rows.items():
        print(f"  {spread:<8}" + "".join(f"{share:10.1%} " for share in shares))
    assert rows[0.02][1] > 0.8
    assert rows[0.05][1] < 0.5


@pytest.mark.parametrize("num", [40, 200])
def test_speed(benchmark, num):
    one, other = np.random.default_rng(0).normal(0.85, 0.05, (2, num))
    benchmark(compare_means, one, other)
