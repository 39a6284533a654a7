"""The bootstrap that all scores share: groups drawn with replacement, as weights of images.

A resample has as many groups as the set, each with all of its images; an image's weight is how
often it is in. What is scored with one sequence of resamples is paired.

Letters: N images, G groups, R resamples.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from hemaml.core.errors import ConfigError
from hemaml.core.types import Float64Array, Int64Array

RESAMPLES = 1000
AT_ONCE = 1 << 21
"""Weights (images times resamples) that are worked on at once, to stay in a processor's cache."""

Interval = tuple[float, float]


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


def percentile_interval(values_R: Float64Array, *, tail: float = 0.025) -> Interval:
    """The middle of what is defined of R scores, without a share of `tail` on either side."""
    defined = values_R[np.isfinite(values_R)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.percentile(defined, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def _drawn(num_groups: int, num: int, rng: np.random.Generator) -> Float64Array:
    """G x num: how often each group is in each of `num` resamples."""
    drawn = rng.integers(0, num_groups, (num, num_groups))
    cells = drawn + np.arange(num)[:, None] * num_groups
    counts = np.bincount(cells.ravel(), minlength=num * num_groups)
    return np.ascontiguousarray(counts.reshape(num, num_groups).T, dtype=np.float64)
