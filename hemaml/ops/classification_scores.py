"""Scores of classifiers, each defined here and nowhere else, with bootstrap intervals.

N images with true classes and C probabilities each; the predicted class is the most probable one
(the first of several). For a class c, n is its number of images, TP those predicted as c, FP the
other images predicted as c, FN = n - TP, TN = N - n - FP. By class:

    precision    TP / (TP + FP), 0 where nothing is predicted as c
    recall       TP / n                                      (sensitivity)
    f1           2 TP / (2 TP + FP + FN)
    specificity  TN / (N - n)
    auc          share of the pairs of an image of c and one of another class in which the first
                 has the higher probability of c; a tie counts half

With two classes these are the scores of class 1, the positive one. With more they are means over
the classes that have images and others beside them (one-vs-rest, macro). Of all images:

    accuracy           share of images whose predicted class is the true one
    balanced_accuracy  mean of the recalls of the classes that have images
    ece                sum over bins of (share of images) * |accuracy - mean top probability|, with
                       15 bins of the top probability: ((i - 1) / 15, i / 15]
    log_loss           mean of -ln p of the true class, p at least 1e-7

Undefined is NaN: precision, recall and f1 where the positive class has no images, specificity
where the negative one has none, and auc where either has none (with more classes: where no class
is defined).

An interval holds the middle 95 % (linear percentiles) of the scores of resampled sets: as many
groups as there are, drawn with replacement, each with all of its images. Resamples in which a
score is undefined are left out of its interval; one whose score of the set itself is undefined has
none (NaN). With few groups such intervals are too narrow. Of `ece`, which noise makes larger and
resampling noisier, the interval is the basic one (2 x the score of the set - that of the resample,
at least 0): the middle of the resamples themselves lies too high, and misses the 0 of a calibrated
model each time. This one holds it in about five of six sets.

Source of the basic interval: A. Davison, D. Hinkley: Bootstrap Methods and their Application
(1997), section 2.4.

Letters: N images, C classes, G groups, R resamples, U distinct probabilities, B bins.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hemaml.core.errors import ConfigError, DataError, UnknownName
from hemaml.core.types import BoolArray, Float32Array, Float64Array, Int64Array
from hemaml.ops.resampling import (
    RESAMPLES,
    Interval,
    SetScores,
    group_indices,
    percentile_interval,
    resampled_scores,
)

SCORES = (
    "accuracy", "precision", "recall", "f1", "auc", "specificity", "balanced_accuracy", "ece",
    "log_loss",
)  # fmt: skip
MINIMIZED = frozenset({"ece", "log_loss"})
"""Scores of which less is better."""
BINS = 15
SMALLEST_PROBABILITY = 1e-7
TOLERANCE = 1e-3
"""By which probabilities of an image may miss a sum of 1."""


def classification_scores(
    probabilities: Float32Array, labels: Sequence[int] | Int64Array
) -> dict[str, float]:
    """All scores of a set of images, by the names and definitions at the top of this module.

    Args:
        probabilities: N x C, rows of sum 1, C at least 2.
        labels: N class indices.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    outcome = checked_outcome(probabilities, labels)
    once_N1 = np.ones((len(outcome.labels), 1))
    return {name: float(values[0]) for name, values in _scores(outcome, once_N1).items()}


def bootstrap_intervals(
    probabilities: Float32Array,
    labels: Sequence[int] | Int64Array,
    groups: Sequence[str] = (),
    *,
    num: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The 95 % interval of each score, by the definition at the top of this module.

    Args:
        probabilities: N x C, rows of sum 1.
        labels: N class indices.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        num: Resamples, R.
        seed: Fixes them.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    outcome = checked_outcome(probabilities, labels)
    group_N = group_indices(groups, len(outcome.labels))
    found = resampled_scores(partial(_drawn_scores, outcome), group_N, num=num, seed=seed)
    once = classification_scores(probabilities, labels)
    return {
        name: percentile_interval(values_R)
        if np.isfinite(once[name]) and group_N.max() > 0  # one group alone has no interval
        else (np.nan, np.nan)
        for name, values_R in found.items()
    }


def set_scores(probabilities: Float32Array, labels: Sequence[int] | Int64Array) -> SetScores:
    """All scores of R resamples as intervals take them, by how often each image is in one.

    Args:
        probabilities: N x C, rows of sum 1.
        labels: N class indices.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    return partial(_drawn_scores, checked_outcome(probabilities, labels))


def score_of_resamples(
    probabilities: Float32Array, labels: Sequence[int] | Int64Array, name: str
) -> Callable[[Float64Array], Float64Array]:
    """One score as a function of N x R weights, how often an image is in a set, to R scores.

    Args:
        probabilities: N x C, rows of sum 1.
        labels: N class indices.
        name: One of `SCORES`.

    Raises:
        UnknownName: No such score.
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    if name not in SCORES:
        raise UnknownName("score", name, SCORES)
    outcome = checked_outcome(probabilities, labels)
    return lambda weights_NR: _scores(outcome, weights_NR, (name,))[name]


def group_scores(
    probabilities: Float32Array, labels: Sequence[int] | Int64Array, groups: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The scores of each group's images by themselves, groups sorted by name.

    Args:
        probabilities: N x C, rows of sum 1.
        labels: N class indices.
        groups: N names.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    group_N = group_indices(groups, len(probabilities))
    labels_N = np.asarray(labels)
    return {
        name: classification_scores(probabilities[group_N == g], labels_N[group_N == g])
        for g, name in enumerate(sorted(set(groups)))
    }


def calibration_bins(probabilities: Float32Array | Float64Array) -> Int64Array:
    """Bin of each image's top probability for `ece`: 0 to `BINS` - 1, closed at their tops."""
    top_N = np.asarray(probabilities, np.float64).max(axis=1)
    # Rounded, as 0.6 in 32 bits is a little more than the top of its bin.
    bins_N: Int64Array = np.ceil(np.round(top_N * BINS, 6)).astype(np.int64) - 1
    return bins_N.clip(0, BINS - 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the scores are made from.

    Attributes:
        probabilities: N x C.
        labels: N true classes.
        predicted: N predicted classes.
    """

    probabilities: Float64Array
    labels: Int64Array
    predicted: Int64Array

    @property
    def correct(self) -> BoolArray:
        """N times whether the predicted class is the true one."""
        return np.equal(self.labels, self.predicted)

    @property
    def scored_classes(self) -> Sequence[int]:
        """The positive class of two, or all."""
        num_classes = self.probabilities.shape[1]
        return (1,) if num_classes == 2 else range(num_classes)


def checked_outcome(probabilities: Float32Array, labels: Sequence[int] | Int64Array) -> Outcome:
    """What the scores are made from, once it is sure that it fits.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    values_NC, labels_N = np.asarray(probabilities, np.float64), np.asarray(labels)
    if values_NC.ndim != 2 or values_NC.shape[1] < 2 or labels_N.shape != values_NC.shape[:1]:
        raise ConfigError(
            "Scores need N x C probabilities (C at least 2) and N labels, but got shapes "
            f"{values_NC.shape} and {labels_N.shape}. Stack what the model predicts for the images."
        )
    if not len(labels_N):
        raise DataError("Scores need at least one image, but the set is empty. Use more data.")
    worst = float(np.abs(values_NC.sum(axis=1) - 1).max())
    if not values_NC.min() >= 0 or not worst <= TOLERANCE:  # NaN fails both
        raise ConfigError(
            f"Probabilities must be at least 0 with a sum of 1, but the smallest is "
            f"{values_NC.min()} and a sum is off by {worst:.3g}. Apply softmax to the logits."
        )
    if labels_N.min() < 0 or labels_N.max() >= values_NC.shape[1]:
        raise ConfigError(
            f"Labels must be class indices below {values_NC.shape[1]}, but they run from "
            f"{labels_N.min()} to {labels_N.max()}. Score the model on its own label set."
        )
    return Outcome(values_NC, labels_N.astype(np.int64), values_NC.argmax(axis=1))


def _scores(
    outcome: Outcome, weights_NR: Float64Array, names: Collection[str] = SCORES
) -> dict[str, Float64Array]:
    """Scores of R weighted sets: a weight is how often the image is in the set."""
    num_classes = outcome.probabilities.shape[1]
    cells_N = outcome.labels * num_classes + outcome.predicted
    confusion_RCC = _summed(cells_N, weights_NR, num_classes**2).reshape(
        -1, num_classes, num_classes
    )
    by_class = _by_class(confusion_RCC)
    by_class["auc"] = np.stack(
        [
            _auc(outcome.probabilities[:, c], outcome.labels == c, weights_NR)
            if c in outcome.scored_classes and "auc" in names  # the only slow one
            else np.full(weights_NR.shape[1], np.nan)
            for c in range(num_classes)
        ],
        axis=1,
    )
    total_R = confusion_RCC.sum(axis=(1, 2))
    chosen = list(outcome.scored_classes)
    means = {name: _mean(values_RC[:, chosen]) for name, values_RC in by_class.items()}
    losses_N = -np.log(
        np.maximum(
            outcome.probabilities[np.arange(len(cells_N)), outcome.labels], SMALLEST_PROBABILITY
        )
    )
    values = {
        **means,
        "accuracy": np.trace(confusion_RCC, axis1=1, axis2=2) / total_R,
        "balanced_accuracy": _mean(by_class["recall"]),
        "ece": _calibration_error(outcome, weights_NR) / total_R,
        "log_loss": losses_N @ weights_NR / total_R,
    }
    return {name: values[name] for name in names}


def _drawn_scores(outcome: Outcome, weights_NR: Float64Array) -> dict[str, Float64Array]:
    """Scores of R resamples, `ece` mirrored at that of the set; see the top of this module."""
    drawn = _scores(outcome, weights_NR)
    once = _scores(outcome, np.ones((len(outcome.labels), 1)), ("ece",))["ece"]
    return drawn | {"ece": np.maximum(2 * once - drawn["ece"], 0)}


def _by_class(confusion_RCC: Float64Array) -> dict[str, Float64Array]:
    """R x C scores from R tables of true (rows) and predicted classes (columns)."""
    true_RC = np.diagonal(confusion_RCC, axis1=1, axis2=2)
    images_RC, predicted_RC = confusion_RCC.sum(axis=2), confusion_RCC.sum(axis=1)
    others_RC = images_RC.sum(axis=1, keepdims=True) - images_RC
    present = np.where(images_RC > 0, 1.0, np.nan)
    # Where a denominator is 0, so is the numerator: 1 stands in for it.
    return {
        "precision": present * true_RC / np.maximum(predicted_RC, 1),
        "recall": present * true_RC / np.maximum(images_RC, 1),
        "f1": present * 2 * true_RC / np.maximum(images_RC + predicted_RC, 1),
        "specificity": np.where(others_RC > 0, 1.0, np.nan)
        * (1 - (predicted_RC - true_RC) / np.maximum(others_RC, 1)),
    }


def _auc(scores_N: Float64Array, positive_N: BoolArray, weights_NR: Float64Array) -> Float64Array:
    """R areas under the ROC curve: weighted ranks, over distinct scores in ascending order."""
    order_N = np.argsort(scores_N, kind="stable")
    sorted_N = scores_N[order_N]
    starts_U = np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1]))
    ranked_NR = weights_NR[order_N]
    positive_UR = np.add.reduceat(ranked_NR * positive_N[order_N, None], starts_U, axis=0)
    negative_UR = np.add.reduceat(ranked_NR, starts_U, axis=0) - positive_UR
    below_UR = negative_UR.cumsum(axis=0) - negative_UR / 2
    pairs_R = positive_UR.sum(axis=0) * negative_UR.sum(axis=0)
    won_R = np.einsum("ur,ur->r", positive_UR, below_UR)
    return np.where(pairs_R > 0, won_R / np.maximum(pairs_R, 1), np.nan)


def _calibration_error(outcome: Outcome, weights_NR: Float64Array) -> Float64Array:
    """R sums over bins of |correct images - sum of their top probabilities|."""
    surplus_N = outcome.correct - outcome.probabilities.max(axis=1)
    bins_N = calibration_bins(outcome.probabilities)
    gaps_RB = np.abs(_summed(bins_N, weights_NR * surplus_N[:, None], BINS))
    return np.asarray(gaps_RB.sum(axis=1))


def _summed(index_N: Int64Array, values_NR: Float64Array, count: int) -> Float64Array:
    """R x count sums of the rows of each index."""
    one_hot = np.zeros((count, len(index_N)))
    one_hot[index_N, np.arange(len(index_N))] = 1
    sums: Float64Array = (one_hot @ values_NR).T
    return sums


def _mean(values_RC: Float64Array) -> Float64Array:
    """Mean of each row over the classes in which it is defined; NaN where it is in none."""
    defined_RC = np.isfinite(values_RC)
    count_R = defined_RC.sum(axis=1)
    total_R = np.where(defined_RC, values_RC, 0).sum(axis=1)
    return np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan)
