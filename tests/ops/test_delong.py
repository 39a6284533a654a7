import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.pairs import swapped
from scipy import special, stats

from hemaml.ops.classification_scores import checked_outcome, classification_scores
from hemaml.ops.delong import compare_auc, deviation_of_sum, influences

GROUPS = [f"g{i % 8}" for i in range(40)]


def drawn(seed, num=40, num_classes=2, skill=1.0, levels=None):
    """Labels of all classes, and two models whose errors have something in common."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    shared = skill * np.eye(num_classes)[labels] + rng.normal(size=(num, num_classes))
    models = []
    for _ in range(2):
        logits = shared + rng.normal(size=(num, num_classes))
        models.append(special.softmax(np.round(logits * levels) / levels if levels else logits, 1))
    return *models, labels


def slow_delong(models, labels):
    """AUCs and their covariance by DeLong's own formulas, pair by pair, ties counted half."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n = len(positive), len(negative)
    v10, v01 = np.zeros((2, m)), np.zeros((2, n))
    for k, values in enumerate(models):
        for i, p in enumerate(positive):
            for j, q in enumerate(negative):
                gap = values[p, 1] - values[q, 1]
                won = 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0
                v10[k, i] += won / n
                v01[k, j] += won / m
    return v10.mean(axis=1), np.cov(v10) / m + np.cov(v01) / n


@pytest.mark.parametrize("levels", [None, 2])
@given(seed=st.integers(0, 10_000))
def test_two_classes_are_delongs(levels, seed):
    one, other, labels = drawn(seed, num=25, levels=levels)
    got = compare_auc(one, other, labels, num=2)
    aucs, covariance = slow_delong((one, other), labels)
    contrast = np.array([1, -1])
    assert got.difference == pytest.approx(contrast @ aucs, abs=1e-12)
    outcomes = checked_outcome(one, labels), checked_outcome(other, labels)
    influence = influences(outcomes[0]) - influences(outcomes[1])
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    deviation, freedom = deviation_of_sum(influence, labels, np.arange(25))
    assert deviation**2 == pytest.approx(contrast @ covariance @ contrast)
    assert 11 <= freedom <= 24
    if got.difference:
        expected = 2 * stats.t.sf(abs(got.difference) / deviation, freedom)
        assert got.p == pytest.approx(expected)


def test_groups_are_obuchowskis():
    one, _, labels = drawn(3)
    outcome, group = checked_outcome(one, labels), np.arange(40) // 5
    own = influences(outcome)
    sides = [
        np.array([own[(labels == c) & (group == g)].sum() for g in range(8)]) for c in (1, 0)
    ]  # (X - m theta) / m of each group, and (Y - n theta) / n
    x, y = sides
    expected = 8 / 7 * ((x**2).sum() + (y**2).sum() + 2 * (x * y).sum())
    deviation, freedom = deviation_of_sum(own, labels, group)
    assert deviation**2 == pytest.approx(expected)
    assert freedom <= 7


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_deviation_is_that_of_new_samples(num_classes):
    rows = []
    for seed in range(1200):
        one, other, labels = drawn(10_000 + seed, num=120, num_classes=num_classes)
        outcomes = checked_outcome(one, labels), checked_outcome(other, labels)
        deviation, _ = deviation_of_sum(
            influences(outcomes[0]) - influences(outcomes[1]), labels, np.arange(120)
        )
        aucs = [classification_scores(values, labels)["auc"] for values in (one, other)]
        rows.append((aucs[0] - aucs[1], deviation))
    differences, deviations = np.array(rows).T
    assert np.sqrt((deviations**2).mean()) == pytest.approx(differences.std(), rel=0.08)


def test_the_deviation_is_that_of_resamples():
    one, other, labels = drawn(5, num=300)
    got = compare_auc(one, other, labels, num=4000)
    deviation = got.difference / (got.effect * math.sqrt(300))
    assert got.high - got.low == pytest.approx(2 * 1.968 * deviation, rel=0.06)


@given(st.integers(0, 10_000))
def test_many_classes_have_the_macro_auc(seed):
    one, other, labels = drawn(seed, num_classes=4, levels=2)
    got = compare_auc(one, other, labels, num=2)
    aucs = [classification_scores(values, labels)["auc"] for values in (one, other)]
    assert got.difference == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    padded = [np.column_stack([values, np.zeros(40)]) for values in (one, other)]
    assert compare_auc(*padded, labels, num=2).p == pytest.approx(got.p)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("groups", [(), GROUPS], ids=["images", "groups"])
@given(seed=st.integers(0, 10_000))
def test_swapped_models_swap_signs_alone(groups, num_classes, seed):
    one, other, labels = drawn(seed, num_classes=num_classes)
    got = compare_auc(one, other, labels, groups, num=50)
    assert compare_auc(other, one, labels, groups, num=50) == swapped(got)
    same = compare_auc(one, one, labels, groups, num=50)
    assert (same.difference, same.low, same.high, same.p, same.effect) == (0, 0, 0, 1, 0)


def test_copies_in_one_group_tell_nothing_new():
    one, other, labels = drawn(2)
    copies = np.tile(np.arange(40), 5)
    names = [f"{i:02d}" for i in copies]
    alone = compare_auc(one, other, labels)
    grouped = compare_auc(one[copies], other[copies], labels[copies], names)
    fooled = compare_auc(one[copies], other[copies], labels[copies])
    assert grouped.p == pytest.approx(alone.p)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    assert fooled.p < alone.p
    assert grouped.test == "DeLong test over groups (Obuchowski 1997)"


def test_two_perfect_models_do_not_differ():
    labels = np.arange(20) % 2
    other = np.eye(2)[labels] * 0.2 + 0.4
    got = compare_auc(np.eye(2)[labels], other, labels)
    assert (got.difference, got.p, got.low, got.high) == (0, 1, 0, 0)


def test_a_difference_without_deviation_is_within_noise():
    labels = np.arange(20) % 2
    got = compare_auc(np.eye(2)[labels], np.eye(2)[1 - labels], labels)
    assert got.difference == 1
    assert math.isnan(got.p)
    assert got.within_noise


@pytest.mark.parametrize("one_group", ["one class", "one patient of a class"])
def test_what_cannot_be_known_is_within_noise(one_group):
    one, other, labels = drawn(0)
    if one_group == "one class":
        got = compare_auc(one, other, np.zeros(40, int))
        assert math.isnan(got.difference)
    else:
        groups = np.where(labels == 1, "ill", [f"well-{i}" for i in range(40)])
        got = compare_auc(one, other, labels, list(groups))
        assert math.isfinite(got.difference)
    assert math.isnan(got.p)
    assert got.within_noise
