import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.pairs import swapped

from hemaml.core.errors import ConfigError, DataError
from hemaml.ops.paired import compare_correct, compare_means
from hemaml.ops.sign_flips import sign_flip_p, signed_ranks

NAN = float("nan")
GROUPS = [f"g{i % 8}" for i in range(40)]


def drawn(seed, num=40, gain=0.0):
    rng = np.random.default_rng(seed)
    base = rng.normal(0.85, 0.05, num)
    return base + gain + rng.normal(0, 0.02, num), base + rng.normal(0, 0.02, num)


def test_means_of_images_by_hand():
    candidate = np.array([0.9, 0.8, 0.7, 0.9, 0.6, 0.9])
    champion = np.array([0.8, 0.6, 0.4, 0.5, 0.1, 0.3])
    got = compare_means(candidate, champion)
    assert got.difference == pytest.approx(2.1 / 6)
    assert (got.p, got.effect) == (2 / 64, 1)
    assert (got.num_images, got.num_groups) == (6, 6)
    assert got.test == "Wilcoxon signed-rank test on images"
    assert 0 < got.low < got.difference < got.high < 0.6
    assert not got.within_noise


@pytest.mark.parametrize("groups", [(), GROUPS], ids=["images", "groups"])
@given(seed=st.integers(0, 10_000))
def test_swapped_models_swap_signs_alone(groups, seed):
    one, other = drawn(seed)
    one[seed % 40] = other[seed % 40]
    for compare in (compare_means, lambda a, b, g, num: compare_correct(a > 0.85, b > 0.85, g)):
        assert compare(other, one, groups, num=100) == swapped(compare(one, other, groups, num=100))


@pytest.mark.parametrize("groups", [(), GROUPS], ids=["images", "groups"])
@given(seed=st.integers(0, 10_000))
def test_a_model_does_not_differ_from_itself(groups, seed):
    one, _ = drawn(seed)
    for got in (
        compare_means(one, one, groups, num=50),
        compare_correct(one > 0.85, one > 0.85, groups, num=50),
    ):
        assert (got.difference, got.low, got.high, got.p, got.effect) == (0, 0, 0, 1, 0)
        assert got.within_noise


def test_groups_are_ranked_by_their_means():
    one, other = drawn(0)
    got = compare_means(one, other, GROUPS)
    means = (one - other).reshape(5, 8).mean(axis=0)
    assert got.p == sign_flip_p(signed_ranks(means))
    assert got.num_groups == 8
    assert got.test == "Wilcoxon signed-rank test on means of groups"


def test_copies_of_images_in_their_groups_change_nothing():
    one, other = drawn(1)
    names = [str(i) for i in range(40)]
    alone = compare_means(one, other)
    copied = compare_means(np.tile(one, 5), np.tile(other, 5), names * 5)
    assert copied.p == alone.p
    # Names are sorted, so the draws are others.
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert compare_means(np.tile(one, 5), np.tile(other, 5)).p < alone.p


def test_the_interval_is_a_percentile_of_resampled_means_further_out():
    one, other = drawn(2, num=200)
    got = compare_means(one, other, num=5000)
    half = 1.972 * (one - other).std(ddof=1) / math.sqrt(200)
    assert got.high - got.difference == pytest.approx(half, rel=0.06)
    assert got.difference - got.low == pytest.approx(half, rel=0.06)


def test_columns_are_averaged_over_images_first():
    one = np.array([[0.9, 0.8], [0.7, NAN], [0.5, NAN]])
    other = np.array([[0.6, 0.6], [0.7, NAN], [0.2, NAN]])
    got = compare_means(one, other)
    assert got.difference == pytest.approx((0.6 / 3 + 0.2) / 2)
    assert got.num_images == 3


def test_an_image_without_a_score_is_left_out():
    got = compare_means(np.array([0.9, NAN, 0.7]), np.array([0.8, NAN, 0.7]))
    assert (got.num_images, got.num_groups) == (2, 2)
    assert got.difference == pytest.approx(0.05)


def test_an_image_with_one_score_needs_to_know_what_is_perfect():
    one, other = np.array([NAN, 0.7]), np.array([0.0, 0.7])
    with pytest.raises(ConfigError, match="NaN for images 0.*`perfect`"):
        compare_means(one, other)
    got = compare_means(one, other, perfect=1)
    assert got.difference == 0.5
    assert compare_means(other, one, perfect=1).difference == -0.5


def test_no_score_at_all_is_within_noise():
    got = compare_means(np.full(9, NAN), np.full(9, NAN))
    assert math.isnan(got.p)
    assert got.within_noise
    assert got.num_images == 0


def test_ranks_against_the_mean_are_noise():
    """A little better on most images, much worse on some."""
    difference = np.concatenate([np.full(36, 0.01), np.full(4, -0.2)])
    got = compare_means(0.8 + difference, np.full(40, 0.8))
    assert got.difference < 0 < got.effect
    assert got.p == 1


def test_one_group_alone_is_noise_without_an_interval():
    one, other = drawn(3, gain=0.1)
    got = compare_means(one, other, ["p"] * 40)
    assert got.p == 1
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.within_noise


def test_correct_images_by_hand():
    candidate = np.repeat([True, True, False, False], [60, 12, 2, 26])
    champion = np.repeat([True, False, True, False], [60, 12, 2, 26])
    got = compare_correct(candidate, champion)
    assert got.difference == pytest.approx(0.1)
    assert got.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert got.effect == pytest.approx(10 / 14)
    assert got.low < 0.1 < got.high
    assert got.test == "McNemar test, exact"


def test_correct_images_of_few_groups_are_no_proof():
    """All in one patient: McNemar by image would be sure of it."""
    candidate, champion = np.ones(40, bool), np.arange(40) % 8 != 3
    candidate[0] = False
    assert compare_correct(candidate, champion).p > 0.05
    champion[3::8] = False
    assert compare_correct(np.ones(40, bool), champion & (np.arange(40) < 30)).p < 0.01
    assert compare_correct(np.ones(40, bool), champion, GROUPS).p == 1


def test_many_groups_agree_with_durkalskis_chi_square():
    rng = np.random.default_rng(0)
    one, other = rng.random(600) < 0.8, rng.random(600) < 0.75
    groups = [f"g{i % 120}" for i in range(600)]
    won = (one.astype(int) - other).reshape(5, 120).sum(axis=0)
    chi_square = won.sum() ** 2 / (won**2).sum()
    got = compare_correct(one, other, groups)
    assert got.p == pytest.approx(math.erfc(math.sqrt(chi_square / 2)), abs=0.02)


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match=r"\(2, 1\) and \(3, 1\)"):
        compare_means(np.zeros(2), np.zeros(3))
    with pytest.raises(ConfigError, match=r"\(2,\) and \(3,\)"):
        compare_correct(np.zeros(2, bool), np.zeros(3, bool))
    with pytest.raises(DataError, match="at least one image"):
        compare_means(np.zeros(0), np.zeros(0))
    with pytest.raises(ConfigError, match="1 groups for 2 images"):
        compare_means(np.zeros(2), np.zeros(2), ["a"])


def test_a_thousand_resamples_of_200_images_take_little_time():
    one, other = drawn(0, num=200)
    compare_means(one, other)
    started = time.perf_counter()
    compare_means(one, other)
    assert time.perf_counter() - started < 0.2
