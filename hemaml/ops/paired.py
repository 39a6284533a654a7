"""Two models on the same images by scores of single images: is their difference more than noise?

A difference is the candidate's score minus the champion's. Images of one group (patient, case or
slide) are not independent, so all tests and intervals take whole groups; without groups each image
is its own. Scores of whole sets are compared in `hemaml.ops.paired_bootstrap`, where the intervals
are told too, the AUC in `hemaml.ops.delong`.

    means of images    Wilcoxon's signed-rank test, on means of groups; its effect is the
                       matched-pairs rank-biserial correlation. Where the ranks speak for one model
                       and the means for the other, p is 1
    correct images     McNemar's exact test; with groups that of Durkalski et al. (2003, Analysis of
                       clustered matched-pair data, Statistics in Medicine 22:2417) with groups
                       weighted by their images, but by its exact distribution under swaps of the
                       models within groups, as chi-square is too bold with few groups. Its effect
                       is (won - lost) / (won + lost) discordant images

Both are exact where a swap of the models within a group changes nothing; with fewer than six groups
that differ no p is below .05.

Letters: N images, K columns, G groups, R resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemaml.core.comparison import Comparison
from hemaml.core.errors import ConfigError
from hemaml.core.types import BoolArray, Float64Array, Int64Array
from hemaml.ops.paired_bootstrap import (
    SAME,
    agreed,
    check_pair,
    expanded_interval,
    is_grouped,
    undefined,
)
from hemaml.ops.resampling import (
    RESAMPLES,
    Interval,
    group_indices,
    resamples,
)
from hemaml.ops.sign_flips import balance, sign_flip_p, signed_ranks


def compare_means(
    candidate: Float64Array,
    champion: Float64Array,
    groups: Sequence[str] = (),
    *,
    perfect: float | None = None,
    num: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares scores of single images, such as Dice, of which a set has the mean.

    NaN is an image without the score, such as Dice of a class in neither mask; where both models
    have NaN it is left out of the means. Where one has, the other found a class that is not there:
    to leave the image out would forgive this, so `perfect` stands in for NaN. Only then is the
    difference not that of the set's two scores.

    Args:
        candidate: N scores, or N x K, of which the mean over images is taken first, then that over
            the columns in which an image has a score.
        champion: Of the same shape.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        perfect: The score of an image that has NaN from one model only.
        num: Resamples, R.
        seed: Fixes them.

    Raises:
        ConfigError: The arrays do not fit each other, or one model alone scores an image and there
            is no `perfect`.
        DataError: No images.
    """
    candidate_NK, champion_NK = _columns(candidate), _columns(champion)
    check_pair(candidate_NK.shape, champion_NK.shape)
    difference_NK = _paired(candidate_NK, perfect, champion_NK) - _paired(
        champion_NK, perfect, candidate_NK
    )
    group_N = group_indices(groups, len(difference_NK))
    kept = np.isfinite(difference_NK).any(axis=1)
    words = "means of groups" if is_grouped(group_N[kept]) else "images"
    test, effect_name = f"Wilcoxon signed-rank test on {words}", "rank-biserial correlation"
    if not kept.any():
        return undefined(test, effect_name)
    difference_NK, group_N = difference_NK[kept], _renumbered(group_N[kept])
    ranks_G = signed_ranks(np.round(_group_means(_shares(difference_NK), group_N), SAME))
    difference, interval = _mean_difference(difference_NK, group_N, num, seed)
    return Comparison(
        difference,
        *interval,
        p=agreed(sign_flip_p(ranks_G), difference, balance(ranks_G)),
        test=test,
        effect=balance(ranks_G),
        effect_name=effect_name,
        num_images=len(group_N),
        num_groups=len(ranks_G),
    )


def compare_correct(
    candidate: BoolArray,
    champion: BoolArray,
    groups: Sequence[str] = (),
    *,
    num: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares shares of correct images, the accuracy.

    Args:
        candidate: N times whether it is right.
        champion: Of the same shape.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        num: Resamples, R.
        seed: Fixes them.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    check_pair(candidate.shape, champion.shape)
    won_N = candidate.astype(np.int64) - champion.astype(np.int64)
    group_N = group_indices(groups, len(won_N))
    won_G = np.bincount(group_N, weights=won_N).astype(np.int64)
    difference, interval = _mean_difference(_columns(won_N), group_N, num, seed)
    clustered = "McNemar test over groups (Durkalski 2003), exact"
    return Comparison(
        difference,
        *interval,
        p=sign_flip_p(won_G),
        test=clustered if is_grouped(group_N) else "McNemar test, exact",
        effect=balance(won_N),
        effect_name="won less lost, share of discordant images",
        num_images=len(won_N),
        num_groups=len(won_G),
    )


def _columns(values: NDArray[Any]) -> Float64Array:
    """N x K from N or N x K."""
    wide = np.asarray(values, np.float64)
    return wide[:, None] if wide.ndim == 1 else wide


def _paired(own_NK: Float64Array, perfect: float | None, other_NK: Float64Array) -> Float64Array:
    """A model's scores, where it has none but the other has: the perfect one."""
    alone_NK = np.isnan(own_NK) & ~np.isnan(other_NK)
    if perfect is None and alone_NK.any():
        images = np.flatnonzero(alone_NK.any(axis=1))
        raise ConfigError(
            "An image must have a score from both models or from none, but one has NaN for images "
            f"{', '.join(map(str, images[:8]))}. Give `perfect`, the score of finding nothing "
            "where there is nothing."
        )
    return np.where(alone_NK, np.nan if perfect is None else perfect, own_NK)


def _renumbered(group_N: Int64Array) -> Int64Array:
    return np.unique(group_N, return_inverse=True)[1].astype(np.int64)


def _shares(difference_NK: Float64Array) -> Float64Array:
    """N parts, whose mean over the images is the mean over columns of their means over images."""
    counts_K = np.isfinite(difference_NK).sum(axis=0)
    weights_K = len(difference_NK) / (np.maximum(counts_K, 1) * (counts_K > 0).sum())
    return np.asarray(np.nan_to_num(difference_NK) @ weights_K)


def _group_means(values_N: Float64Array, group_N: Int64Array) -> Float64Array:
    return np.asarray(np.bincount(group_N, weights=values_N) / np.bincount(group_N))


def _mean_difference(
    difference_NK: Float64Array, group_N: Int64Array, num: int, seed: int
) -> tuple[float, Interval]:
    """Mean over columns of their means over images, and its interval; sums of groups suffice."""
    num_groups = int(group_N.max()) + 1
    sums_GK, counts_GK = (
        np.stack([np.bincount(group_N, weights=column) for column in values_NK.T], axis=1)
        for values_NK in (np.nan_to_num(difference_NK), np.isfinite(difference_NK))
    )

    def mean(weights_GR: Float64Array) -> Float64Array:
        counts_KR = counts_GK.T @ weights_GR
        means_KR = sums_GK.T @ weights_GR / np.maximum(counts_KR, 1)
        filled_R = (counts_KR > 0).sum(axis=0)
        return np.asarray(
            np.where(filled_R > 0, means_KR.sum(axis=0) / np.maximum(filled_R, 1), np.nan)
        )

    pieces = resamples(np.arange(num_groups), num=num, seed=seed)
    values_R = np.concatenate([mean(weights_GR) for weights_GR in pieces])
    difference = float(mean(np.ones((num_groups, 1)))[0])
    return difference, expanded_interval(values_R, group_N)
