"""Models that are alike: how often is one called better? At most in 5 % of 1,000 pairs.

In groups, each model is off by the same in all images of a group: eight groups of five images then
tell hardly more than eight images, and a test that takes images for independent promotes in 20 %.
"""

import numpy as np
import pytest
from ops.pairs import promoted_share
from scipy import special

from hemaml.ops.classification_scores import score_of_resamples
from hemaml.ops.delong import compare_auc
from hemaml.ops.paired import compare_correct, compare_means
from hemaml.ops.paired_bootstrap import compare_resampled

NUM, NUM_GROUPS = 40, 8
EVEN = np.arange(NUM) % NUM_GROUPS
UNEVEN = np.repeat(np.arange(NUM_GROUPS), [16, 8, 4, 4, 2, 2, 2, 2])
PATTERNS = {"images": None, "even groups": EVEN, "uneven groups": UNEVEN}
RESAMPLES = 100
"""Few, as intervals do not decide here."""

pattern = pytest.mark.parametrize("group", PATTERNS.values(), ids=PATTERNS)


def names(group):
    return () if group is None else [f"g{g}" for g in group]


def offsets(rng, group, spread):
    return 0 if group is None else rng.normal(0, spread, NUM_GROUPS)[group]


def positives(rng, labels, group, spread=1.5):
    """Probabilities of class 1 from two models that are alike."""
    base = 2 * labels - 1 + rng.normal(0, 1, NUM)
    for _ in range(2):
        logits = base + rng.normal(0, 0.5, NUM) + offsets(rng, group, spread)
        positive = special.expit(logits)
        yield np.stack([1 - positive, positive], axis=1)


@pattern
def test_means(group):
    def draw(rng):
        base = rng.normal(0.85, 0.05, NUM)
        one, other = (
            (base + rng.normal(0, 0.02, NUM) + offsets(rng, group, 0.05)).clip(0, 1)
            for _ in range(2)
        )
        return compare_means(one, other, names(group), num=RESAMPLES)

    assert promoted_share(draw) <= 0.05


@pattern
def test_correct_images(group):
    def draw(rng):
        base = rng.normal(1, 1, NUM)
        one, other = (base + rng.normal(0, 0.5, NUM) + offsets(rng, group, 2) > 0 for _ in range(2))
        return compare_correct(one, other, names(group), num=RESAMPLES)

    assert promoted_share(draw) <= 0.05


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "one class a group"])
@pattern
def test_auc(group, mixed):
    labels = np.arange(NUM) // 5 % 2 if mixed or group is None else group % 2

    def draw(rng):
        one, other = positives(rng, labels, group)
        return compare_auc(one, other, labels, names(group), num=2)

    assert promoted_share(draw) <= 0.05


@pytest.mark.parametrize("name", ["f1", "log_loss"])
@pattern
def test_resampled_scores(group, name):
    labels = np.arange(NUM) // 5 % 2

    def draw(rng):
        scores = [
            score_of_resamples(values, labels, name) for values in positives(rng, labels, group)
        ]
        return compare_resampled(*scores, NUM, names(group), num=200)

    assert promoted_share(draw) <= 0.05


def test_images_taken_for_independent_would_promote_noise():
    """Shows that the groups of this file are the important case."""

    def draw(rng):
        one, other = (rng.normal(0, 0.02, NUM) + offsets(rng, EVEN, 0.05) for _ in range(2))
        return compare_means(one, other, num=2)

    assert promoted_share(draw) > 0.15
