"""The paired bootstrap: any score of two models on the same resamples, intervals and p values.

An interval of a difference holds the middle of the differences of resampled sets (groups drawn with
replacement, or images where there are none), both models scored on the same ones. With few groups
such percentiles are too narrow; they are taken further out, where Student's t is, and p values
likewise (Hesterberg 2015, What Teachers Should Know About the Bootstrap, The American Statistician
69:371, "expanded percentile interval"). Few are also many groups of which some have most images:
what counts is N^2 / sum of n_g^2, which is G where all have equally many (Kish 1965, Survey
Sampling). A resample in which a score is undefined is left out. One group alone has no interval
and no p.

Letters: N images, G groups, R resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from hemaml.core.comparison import Comparison
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.types import Float64Array, Int64Array
from hemaml.ops.resampling import (
    RESAMPLES,
    Interval,
    group_indices,
    percentile_interval,
    resamples,
)

SAME = 12
"""Decimals to which differences are told apart: what is left by rounding is no difference."""

STANDARDISED = "difference over its deviation between images (or groups)"

Weighted = Callable[[Float64Array], Float64Array]
"""N x R weights, how often each image is in a set, to R scores."""


def compare_resampled(
    candidate: Weighted,
    champion: Weighted,
    count: int,
    groups: Sequence[str] = (),
    *,
    num: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares any score that resampled sets can have.

    p is (2 min(a, b) + 1) / (R + 1), at most 1, with a and b the resamples whose difference is at
    most and at least 0, then moved to Student's t as at the top of this module.

    Args:
        candidate: Scores of weighted sets, as `score_of_resamples` of
            `hemaml.ops.classification_scores` gives.
        champion: The same score of the other model.
        count: Images, N.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        num: Resamples, R.
        seed: Fixes them.

    Raises:
        ConfigError: Neither none nor N groups.
        DataError: No images.
    """
    check_pair((count,), (count,))
    group_N = group_indices(groups, count)
    num_groups = int(group_N.max()) + 1
    difference = difference_of(candidate, champion, count)
    test = f"paired bootstrap over {'groups' if is_grouped(group_N) else 'images'}"
    if np.isnan(difference):
        return undefined(test, STANDARDISED, count, num_groups)
    values_R = np.round(
        resampled_differences(candidate, champion, group_N, num=num, seed=seed), SAME
    )
    below, above = int((values_R <= 0).sum()), int((values_R >= 0).sum())
    p = min(1.0, (2 * min(below, above) + 1) / (len(values_R) + 1))
    return Comparison(
        difference,
        *expanded_interval(values_R, group_N),
        p=agreed(_expanded_p(p, group_N), difference, above - below),
        test=test,
        effect=standardised(difference, float(values_R.std()), num_groups),
        effect_name=STANDARDISED,
        num_images=count,
        num_groups=num_groups,
    )


def undefined(test: str, effect_name: str, num_images: int = 0, num_groups: int = 0) -> Comparison:
    """What is known where the score of a model is undefined."""
    nan = float("nan")
    return Comparison(nan, nan, nan, nan, test, nan, effect_name, num_images, num_groups)


def difference_of(candidate: Weighted, champion: Weighted, count: int) -> float:
    """The difference on the set of N images itself."""
    once_N1 = np.ones((count, 1))
    return float(candidate(once_N1)[0] - champion(once_N1)[0])


def resampled_differences(
    candidate: Weighted, champion: Weighted, group_N: Int64Array, *, num: int, seed: int
) -> Float64Array:
    """Up to R differences on resampled sets, of which those that are undefined are left out."""
    pieces = resamples(group_N, num=num, seed=seed)
    values_R = np.concatenate([candidate(w_NR) - champion(w_NR) for w_NR in pieces])
    return np.asarray(values_R[np.isfinite(values_R)])


def effective_groups(group_N: Int64Array) -> float:
    """How many groups of one size tell as much as these: N^2 / sum of n_g^2, at most G."""
    return float(len(group_N) ** 2 / (np.bincount(group_N) ** 2).sum())


def expanded_interval(values_R: Float64Array, group_N: Int64Array) -> Interval:
    """95 % interval from R resampled differences, as wide as few groups ask for."""
    num = effective_groups(group_N)
    if num <= 1:
        return np.nan, np.nan
    wide = np.sqrt(num / (num - 1))
    return percentile_interval(
        values_R, tail=float(special.ndtr(wide * special.stdtrit(num - 1, 0.025)))
    )


def agreed(p: float, difference: float, direction: float) -> float:
    """p, or 1 where the test does not point to where the difference points."""
    return p if difference * direction > 0 else 1.0


def standardised(difference: float, deviation: float, num_groups: int) -> float:
    """A difference over the deviation between groups that its standard deviation implies.

    0 where there is no difference, NaN where a difference has no deviation.
    """
    if not difference or not deviation:
        return float("nan") if difference else 0.0
    return float(difference / (deviation * np.sqrt(num_groups)))


def is_grouped(group_N: Int64Array) -> bool:
    """Whether a group has several images."""
    return len(np.unique(group_N)) < len(group_N)


def _expanded_p(p: float, group_N: Int64Array) -> float:
    """The two-sided p of a normal deviate, for one that few groups estimate."""
    num = effective_groups(group_N)
    if num <= 1:
        return float("nan")
    wide = np.sqrt(num / (num - 1))
    return float(2 * special.stdtr(num - 1, special.ndtri(p / 2) / wide))


def check_pair(candidate: tuple[int, ...], champion: tuple[int, ...]) -> None:
    """Raises `ConfigError` where two models have not the same images, `DataError` where none."""
    if candidate != champion:
        raise ConfigError(
            f"Both models must be scored on the same images, but got shapes {candidate} and "
            f"{champion}. Predict one data set with both."
        )
    if not candidate[0]:
        raise DataError("A comparison needs at least one image, but the set is empty.")
