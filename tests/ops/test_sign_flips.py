from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hemaml.ops import sign_flips
from hemaml.ops.sign_flips import balance, sign_flip_p, signed_ranks

WHOLE = st.lists(st.integers(-6, 6), min_size=1, max_size=9).map(np.array)


@given(WHOLE)
def test_p_counts_all_signs(values):
    sizes = np.abs(values[values != 0])
    sums = [abs(np.dot(signs, sizes)) for signs in product([-1, 1], repeat=len(sizes))]
    expected = np.mean(np.array(sums) >= abs(values.sum()))
    assert sign_flip_p(values) == pytest.approx(expected)


@given(st.integers(0, 30), st.integers(0, 30))
def test_equal_sizes_are_a_binomial_test(won, lost):
    values = np.repeat([1, -1], [won, lost])
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1
    assert sign_flip_p(values) == pytest.approx(expected)


@pytest.mark.parametrize("num", [1, 5, 8, 40, 120])
def test_ranks_give_scipys_exact_wilcoxon(num):
    values = np.random.default_rng(num).normal(0.3, 1, num)
    ranks = signed_ranks(values)
    assert sign_flip_p(ranks) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    sizes = stats.rankdata(np.abs(values))
    assert balance(ranks) == pytest.approx(np.sign(values) @ sizes / sizes.sum())


def test_tied_ranks_and_zeros_give_scipys_permutation_test():
    values = np.array([0, 0, 1, 1, -1, 2, 2, 2, -3, 4, 4.0])
    exact = stats.PermutationMethod(n_resamples=np.inf)
    expected = stats.wilcoxon(values, method=exact).pvalue
    assert sign_flip_p(signed_ranks(values)) == pytest.approx(expected)


def test_many_values_give_scipys_normal_wilcoxon(monkeypatch):
    values = np.round(np.random.default_rng(0).normal(0.1, 1, 300), 1)
    exact = sign_flip_p(signed_ranks(values))
    monkeypatch.setattr(sign_flips, "EXACT_WORK", 0)
    normal = sign_flip_p(signed_ranks(values))
    expected = stats.wilcoxon(values, method="asymptotic", zero_method="wilcox").pvalue
    assert normal == pytest.approx(expected)
    assert exact == pytest.approx(normal, rel=0.02)


def test_nothing_differs():
    assert sign_flip_p(np.zeros(5, np.int64)) == 1
    assert balance(np.zeros(5, np.int64)) == 0


def test_fewer_than_six_values_are_never_significant():
    assert sign_flip_p(np.array([5, 9, 2, 4, 1])) == 2 / 32
    assert sign_flip_p(np.array([5, 9, 2, 4, 1, 7])) == 2 / 64
