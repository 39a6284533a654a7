import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.pairs import swapped
from scipy import special

from hemaml.core.errors import ConfigError, DataError, UnknownName
from hemaml.ops.classification_scores import SCORES, classification_scores, score_of_resamples
from hemaml.ops.paired import compare_means
from hemaml.ops.paired_bootstrap import compare_resampled, effective_groups

LABELS = np.arange(40) % 2
GROUPS = [f"g{i % 8}" for i in range(40)]


def probabilities(seed, skill=1.0):
    rng = np.random.default_rng(seed)
    positive = special.expit(skill * (2 * LABELS - 1) + rng.normal(0, 1, 40))
    return np.stack([1 - positive, positive], axis=1)


def compared(one, other, name, groups=(), num=200):
    return compare_resampled(
        *(score_of_resamples(values, LABELS, name) for values in (one, other)),
        40,
        groups,
        num=num,
    )


def mean_of(values):
    return lambda weights: values @ weights / weights.sum(axis=0)


@pytest.mark.parametrize("name", SCORES)
def test_the_difference_is_that_of_the_scores(name):
    one, other = probabilities(0, 2.0), probabilities(1)
    got = compared(one, other, name)
    scores = [classification_scores(values, LABELS)[name] for values in (one, other)]
    assert got.difference == pytest.approx(scores[0] - scores[1])
    assert got.test == "paired bootstrap over images"


@pytest.mark.parametrize("groups", [(), GROUPS], ids=["images", "groups"])
@given(seed=st.integers(0, 10_000), name=st.sampled_from(["f1", "ece", "log_loss"]))
def test_swapped_models_swap_signs_alone(groups, seed, name):
    one, other = probabilities(seed), probabilities(seed + 1)
    got = compared(one, other, name, groups)
    assert compared(other, one, name, groups) == swapped(got)
    same = compared(one, one, name, groups)
    assert (same.difference, same.low, same.high, same.p, same.effect) == (0, 0, 0, 1, 0)


def test_means_have_the_interval_of_means():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40))
    got = compare_resampled(mean_of(one), mean_of(other), 40, GROUPS)
    expected = compare_means(one, other, GROUPS)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_p_is_that_of_a_paired_t_test():
    from scipy import stats

    for seed in range(5):
        one, other = np.random.default_rng(seed).normal(size=(2, 30))
        got = compare_resampled(mean_of(one), mean_of(other), 30, num=4000)
        assert got.p == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=0.04)


def test_the_smallest_p_is_one_more_than_the_resamples():
    one = np.random.default_rng(0).normal(9, 1, 10_000)
    got = compare_resampled(mean_of(one), mean_of(one - 5 + one % 1), 10_000, num=99)
    assert got.p == pytest.approx(1 / 100, rel=0.01)


def test_an_undefined_score_is_within_noise():
    one = score_of_resamples(np.array([[0.9, 0.1], [0.2, 0.8]]), [0, 0], "f1")
    got = compare_resampled(one, one, 2)
    assert math.isnan(got.difference)
    assert got.within_noise


def test_one_group_is_within_noise():
    got = compared(probabilities(0, 5.0), probabilities(1, -5.0), "f1", ["p"] * 40)
    assert got.difference > 0.5
    assert math.isnan(got.p)
    assert got.within_noise


def test_few_large_groups_count_less():
    assert effective_groups(np.arange(8).repeat(5)) == 8
    assert effective_groups(np.arange(40)) == 40
    assert 1 < effective_groups(np.array([0] * 90 + list(range(1, 11)))) < 1.3


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="at least one image"):
        compare_resampled(mean_of(np.zeros(0)), mean_of(np.zeros(0)), 0)
    with pytest.raises(ConfigError, match="1 groups for 40 images"):
        compared(probabilities(0), probabilities(1), "f1", ["p"])
    with pytest.raises(UnknownName, match="'f2'; known: f1"):
        score_of_resamples(probabilities(0), LABELS, "f2")
