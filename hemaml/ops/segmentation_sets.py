"""Segmentation scores of resampled sets: their intervals, and two models compared.

The scores and their means are defined at the top of `hemaml.ops.scores`, intervals as in
`hemaml.ops.classification_scores`, tests in `hemaml.ops.paired` and, for the pooled scores, in
`hemaml.ops.paired_bootstrap`.

Letters: N images, C classes, K scores by class, R resamples.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hemaml.core.comparison import Comparison
from hemaml.core.errors import UnknownName
from hemaml.core.types import Float64Array
from hemaml.ops.paired import compare_means
from hemaml.ops.paired_bootstrap import check_pair, compare_resampled
from hemaml.ops.resampling import (
    RESAMPLES,
    Interval,
    group_indices,
    percentile_interval,
    resampled_scores,
)
from hemaml.ops.scores import PERFECT, SCORES, ScoredImages, overlap_scores

TOTALS = (*SCORES, "dice_with_background")
POOLED = ("dice_pooled", "dice_pooled_with_background")


def set_scores(images: ScoredImages, weights_NR: Float64Array) -> dict[str, Float64Array]:
    """All scores of `segmentation_report` for R sets, by how often each image is in one.

    Args:
        images: N scored images.
        weights_NR: N x R.
    """
    keys = list(images.per_image[0])
    values_NK = _values(images, keys)
    counts_KR = np.isfinite(values_NK).T.astype(np.float64) @ weights_NR
    sums_KR = np.nan_to_num(values_NK).T @ weights_NR
    means_KR = np.where(counts_KR > 0, sums_KR / np.maximum(counts_KR, 1), np.nan)
    by_class = dict(zip(keys, means_KR, strict=True))
    totals = {name: _mean([by_class[key] for key in _keys(images, name)]) for name in TOTALS}
    pooled = {name: _pooled(images, name)(weights_NR) for name in POOLED}
    return {**totals, **by_class, **pooled}


def segmentation_intervals(
    images: ScoredImages, groups: Sequence[str] = (), *, num: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The bootstrap 95 % interval of each score of `segmentation_report`.

    NaN where a score of the set itself is undefined.

    Args:
        images: N scored images.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        num: Resamples, R.
        seed: Fixes them.

    Raises:
        ConfigError: Neither none nor N groups.
    """
    group_N = group_indices(groups, len(images.per_image))
    found = resampled_scores(partial(set_scores, images), group_N, num=num, seed=seed)
    if group_N.max() == 0:  # one group alone has no interval
        return dict.fromkeys(found, (np.nan, np.nan))
    return {name: percentile_interval(values_R) for name, values_R in found.items()}


def compare_segmentations(
    candidate: ScoredImages,
    champion: ScoredImages,
    metric: str,
    groups: Sequence[str] = (),
    *,
    num: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares any score of `segmentation_report`.

    Where one model alone has a score of an image, the other found a class that is not there: the
    first then counts as perfect for this image (see `compare_means`).

    Args:
        candidate: N scored images.
        champion: The same images.
        metric: A key of the report.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        num: Resamples, R.
        seed: Fixes them.

    Raises:
        UnknownName: No such score.
        ConfigError: The models have not the same images, or neither none nor N groups.
    """
    check_metric(metric, candidate.classes)
    count = len(candidate.per_image)
    check_pair((count,), (len(champion.per_image),))
    if metric in POOLED:
        sets = _pooled(candidate, metric), _pooled(champion, metric)
        return compare_resampled(*sets, count, groups, num=num, seed=seed)
    keys = _keys(candidate, metric)
    return compare_means(
        _values(candidate, keys),
        _values(champion, keys),
        groups,
        perfect=PERFECT[keys[0].partition("/")[0]],
        num=num,
        seed=seed,
    )


def check_metric(metric: str, classes: Sequence[str]) -> None:
    """Raises `UnknownName` for what is no key of the report of masks with these classes."""
    by_class = [f"{score}/{name}" for name in classes for score in SCORES]
    if metric not in (known := (*TOTALS, *by_class, *POOLED)):
        raise UnknownName("metric to compare", metric, known)


def _keys(images: ScoredImages, metric: str) -> list[str]:
    """The scores by class whose mean a metric is."""
    if metric == "dice_with_background":
        return [f"dice/{name}" for name in images.classes]
    if metric in SCORES:
        return [f"{metric}/{name}" for name in images.foreground]
    return [metric]


def _values(images: ScoredImages, keys: Sequence[str]) -> Float64Array:
    """N x K scores of single images."""
    return np.array([[scores[key] for key in keys] for scores in images.per_image])


def _pooled(images: ScoredImages, name: str) -> Callable[[Float64Array], Float64Array]:
    chosen = images.foreground if name == "dice_pooled" else images.classes
    indices = [images.classes.index(name) for name in chosen]
    size = len(images.classes)

    def scores(weights_NR: Float64Array) -> Float64Array:
        cells_NP = images.confusions.reshape(-1, size * size).astype(np.float64)
        dice_RC = overlap_scores((cells_NP.T @ weights_NR).T.reshape(-1, size, size))["dice"]
        return _mean([dice_RC[:, index] for index in indices])

    return scores


def _mean(columns: Sequence[Float64Array]) -> Float64Array:
    """R means over the columns in which a value is defined; NaN where it is in none."""
    values_KR = np.stack(columns)
    counts_R = np.isfinite(values_KR).sum(axis=0)
    means_R = np.nan_to_num(values_KR).sum(axis=0) / np.maximum(counts_R, 1)
    return np.asarray(np.where(counts_R > 0, means_R, np.nan))
