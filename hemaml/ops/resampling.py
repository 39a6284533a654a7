"""The bootstrap that all scores share: groups drawn with replacement, as weights of images.

A resample has as many groups as the set, each with all of its images; an image's weight is how
often it is in. What is scored with one sequence of resamples is paired.

Letters: N images, G groups, R resamples.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from hemaml.core.errors import ConfigError
from hemaml.core.types import Float64Array, Int64Array

RESAMPLES = 1000
AT_ONCE = 1 << 21
"""Weights (images times resamples) that are worked on at once, to stay in a processor's cache."""
LEAST_DEFINED = 0.9
"""Share of the resamples in which a mean must be defined for its interval to be told."""

Interval = tuple[float, float]
SetScores = Callable[[Float64Array], Mapping[str, Float64Array]]
"""N x R weights, how often each image is in a set, to R scores by name."""


def group_indices(groups: Sequence[str], count: int) -> Int64Array:
    """Index of each image's group among the sorted names; of the image itself without groups.

    Raises:
        ConfigError: Neither none nor `count` groups.
    """
    if not len(groups):
        return np.arange(count)
    if len(groups) != count:
        raise ConfigError(
            f"Each image must have one group, but got {len(groups)} groups for {count} images. "
            "Give one an image, or none at all."
        )
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def resamples(
    group_N: Int64Array, *, num: int = RESAMPLES, seed: int = 0
) -> Iterator[Float64Array]:
    """N x r weights of the images, in pieces that have `num` resamples together.

    Args:
        group_N: Results of `group_indices`.
        num: Resamples, R.
        seed: Fixes them.
    """
    num_groups = int(group_N.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, AT_ONCE // len(group_N))
    for first in range(0, num, step):
        yield _drawn(num_groups, min(step, num - first), rng)[group_N]


def resampled_scores(
    scores: SetScores,
    group_M: Int64Array,
    places_N: Int64Array | slice = slice(None),
    *,
    num: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Float64Array]:
    """R scores of N images, while the groups of a larger set of M are drawn.

    Parts of one set that are scored in turns thus see the same draws, and can be averaged draw by
    draw, though they share groups. NaN where a draw has no image of the part.

    Args:
        scores: Of the N images.
        group_M: Results of `group_indices` for the larger set.
        places_N: Where the images are in it.
        num: Resamples, R.
        seed: Fixes them.
    """
    columns: dict[str, list[Float64Array]] = defaultdict(list)
    for weights_MR in resamples(group_M, num=num, seed=seed):
        weights_NR = weights_MR[places_N]
        empty_R = ~weights_NR.any(axis=0)
        weights_NR[:, empty_R] = 1  # scored like the others, then blotted out
        for name, values_R in scores(weights_NR).items():
            columns[name].append(np.where(empty_R, np.nan, values_R))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def percentile_interval(values_R: Float64Array, *, tail: float = 0.025) -> Interval:
    """The middle of what is defined of R scores, without a share of `tail` on either side."""
    defined = values_R[np.isfinite(values_R)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.percentile(defined, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def mean_intervals(parts: Sequence[Mapping[str, Float64Array]]) -> dict[str, Interval]:
    """The 95 % interval of the mean of each score over parts that were scored on the same draws.

    Draws in which a score of a part is undefined are left out. Where these are more than a few, as
    with parts of one or two groups, what is left are draws like the set itself: NaN.

    Args:
        parts: Results of `resampled_scores`; a score that is not in all of them has no interval.
    """
    names = [name for name in parts[0] if all(name in part for part in parts)]
    means = {name: np.mean([part[name] for part in parts], axis=0) for name in names}
    return {
        name: percentile_interval(means_R)
        if np.isfinite(means_R).mean() >= LEAST_DEFINED
        else (np.nan, np.nan)
        for name, means_R in means.items()
    }


def interval_metrics(intervals: Mapping[str, Interval], prefix: str = "") -> dict[str, float]:
    """Ends of intervals as metrics; those that are undefined are left out.

    Args:
        intervals: By score.
        prefix: Of the scores' names, that of a view of a model.

    Returns:
        `ci/<prefix><score>_low` and `_high`.
    """
    ends = {
        f"ci/{prefix}{name}_{end}": value
        for name, interval in intervals.items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }
    return {name: value for name, value in ends.items() if np.isfinite(value)}


def _drawn(num_groups: int, num: int, rng: np.random.Generator) -> Float64Array:
    """G x num: how often each group is in each of `num` resamples."""
    drawn = rng.integers(0, num_groups, (num, num_groups))
    cells = drawn + np.arange(num)[:, None] * num_groups
    counts = np.bincount(cells.ravel(), minlength=num * num_groups)
    return np.ascontiguousarray(counts.reshape(num, num_groups).T, dtype=np.float64)
