"""The exact test that paired comparisons share: what if each pair's sign were a coin's?

Where two models are alike, swapping them within a pair (an image, or a whole group of images) is
as probable as not. So the sum of whole numbers x with such signs has a known distribution, and with
it several tests:

    x = +-1 for each discordant image           McNemar's exact test, the binomial test
    x = won less lost images of a group         McNemar's test for clustered data
    x = signed ranks of the differences         Wilcoxon's signed-rank test, ties and all

Below six values that are not 0 no p is under .05.

Letters: M values, T possible sums.
"""

import numpy as np
from scipy import special

from hemaml.core.types import Float64Array, Int64Array

EXACT_WORK = 40_000_000
"""Values times sums up to which the distribution is counted: 0.1 s, some 300 ranks."""


def sign_flip_p(values: Int64Array) -> float:
    """Two-sided p: how often coins as signs give M whole numbers a sum so far from 0.

    1 where all are 0. Exact up to `EXACT_WORK`. Above, by the normal distribution with the variance
    of the sum under random signs, the sum of squares: Wilcoxon's with its correction for ties,
    McNemar's chi-square.
    """
    sizes_M = np.abs(values[values != 0])
    total = int(sizes_M.sum())
    if not total:
        return 1.0
    gap = abs(int(values.sum()))
    if (sizes_M == 1).all():  # binomial
        return _twice(float(special.bdtr((total - gap) // 2, total, 0.5)))
    if len(sizes_M) * total > EXACT_WORK:
        return _twice(float(special.ndtr(-gap / np.sqrt((sizes_M.astype(np.float64) ** 2).sum()))))
    return _twice(float(_sum_shares(sizes_M, total)[: (total - gap) // 2 + 1].sum()))


def signed_ranks(values: Float64Array) -> Int64Array:
    """Twice the rank of each value's size, with its sign; ties share a rank, 0 has none."""
    ranks = np.zeros(len(values), dtype=np.int64)
    kept = values != 0
    _, inverse, counts = np.unique(np.abs(values[kept]), return_inverse=True, return_counts=True)
    ranks[kept] = (2 * counts.cumsum() - counts + 1)[inverse]
    return ranks * np.sign(values).astype(np.int64)


def balance(values: Int64Array) -> float:
    """Sum of the values as a share of the sum of their sizes: -1 to 1, 0 where all are 0.

    Of signed ranks this is the matched-pairs rank-biserial correlation (Kerby 2014).
    """
    total = int(np.abs(values).sum())
    return int(values.sum()) / total if total else 0.0


def _sum_shares(sizes_M: Int64Array, total: int) -> Float64Array:
    """Probability of each sum of the positive values, 0 to `total`, all signs equally probable."""
    shares_T = np.zeros(total + 1)
    shares_T[0] = 1
    reached = 0
    for size in np.sort(sizes_M):  # small first, so that the sums grow late
        reached += int(size)
        moved = shares_T[: reached + 1 - size].copy()
        shares_T[: reached + 1] /= 2
        shares_T[size : reached + 1] += moved / 2
    return shares_T


def _twice(tail: float) -> float:
    return min(1.0, 2 * tail)
