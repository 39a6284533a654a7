"""Two models on the same images by their AUC: DeLong's test, for groups and for many classes too.

By its AUC an image's influence is how far its own share of won pairs lies from the AUC, over the
number of images of its side (DeLong et al. 1988, Comparing the Areas under Two or More Correlated
Receiver Operating Characteristic Curves, Biometrics 44:837): with m images of the class and n
others, (V - AUC) / m or / n, V the share of the other side's images it is on the right side of, a
tie counting half. The influence on a mean over classes is the mean of its influences, that on a
difference their difference. What it lies off 0 in the mean of a true class is taken off: as with
two classes, where it is 0, the numbers of images of the classes are no matter of chance.

Influences are summed within groups and true classes, u_gk. With I_k groups that have class k and I
groups in all the variance of the difference is

    sum_k I_k / (I_k - 1) sum_g u_gk^2  +  I / (I - 1) sum_g sum_{k != l} u_gk u_gl

With two classes this is that of Obuchowski (1997, Nonparametric Analysis of Clustered ROC Curve
Data, Biometrics 53:567), and DeLong's where each image is a group of its own. The difference over
its deviation is referred to Student's t, not to the normal distribution, which is too bold with few
groups: the degrees of freedom are those of Welch and Satterthwaite for the parts of the classes,
at most those of all images, each one less than the groups that tell as much
(`effective_groups` of `hemaml.ops.paired_bootstrap`).

p is 1 where the models do not differ. It is NaN where a variance cannot be had: a class has images
of one group alone, or the AUCs differ while no image's influence does (one model ranks all right,
the other all wrong or all equal); then more images are needed.

Letters: N images, C classes, G groups.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from hemaml.core.comparison import Comparison
from hemaml.core.types import BoolArray, Float32Array, Float64Array, Int64Array
from hemaml.ops.classification_scores import Outcome, checked_outcome, score_of_resamples
from hemaml.ops.paired_bootstrap import (
    STANDARDISED,
    difference_of,
    effective_groups,
    expanded_interval,
    is_grouped,
    resampled_differences,
    standardised,
    undefined,
)
from hemaml.ops.resampling import RESAMPLES, group_indices

NOTHING = 1e-12
"""Differences and deviations below it are left by rounding."""


def compare_auc(
    candidate: Float32Array,
    champion: Float32Array,
    labels: Sequence[int] | Int64Array,
    groups: Sequence[str] = (),
    *,
    num: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares the `auc` of `hemaml.ops.classification_scores`, of two classes or the macro mean.

    Args:
        candidate: N x C probabilities, rows of sum 1, C at least 2.
        champion: Of the same shape.
        labels: N class indices.
        groups: N names of what is drawn as a whole; empty: each image by itself.
        num: Resamples for the interval, R.
        seed: Fixes them.

    Raises:
        ConfigError: The arrays do not fit each other.
        DataError: No images.
    """
    scores = score_of_resamples(candidate, labels, "auc")
    other_scores = score_of_resamples(champion, labels, "auc")
    outcome, other = checked_outcome(candidate, labels), checked_outcome(champion, labels)
    group_N = group_indices(groups, len(outcome.labels))
    num_groups = int(group_N.max()) + 1
    test = "DeLong test" + (" over groups (Obuchowski 1997)" if is_grouped(group_N) else "")
    difference = difference_of(scores, other_scores, len(group_N))
    if np.isnan(difference):
        return undefined(test, STANDARDISED, len(group_N), num_groups)
    difference = 0.0 if abs(difference) < NOTHING else difference
    influence_N = influences(outcome) - influences(other)
    deviation, freedom = deviation_of_sum(influence_N, outcome.labels, group_N)
    differences_R = resampled_differences(scores, other_scores, group_N, num=num, seed=seed)
    return Comparison(
        difference,
        *expanded_interval(differences_R, group_N),
        p=_p(difference, deviation, freedom),
        test=test,
        effect=standardised(difference, deviation, num_groups),
        effect_name=STANDARDISED,
        num_images=len(group_N),
        num_groups=num_groups,
    )


def influences(outcome: Outcome) -> Float64Array:
    """N influences on the AUC; their sum is 0 in each true class.

    Args:
        outcome: Probabilities and labels, of two classes with images at least.
    """
    found = []
    for c in outcome.scored_classes:
        positive_N = outcome.labels == c
        if 0 < positive_N.sum() < len(positive_N):
            found.append(_influences_of(outcome.probabilities[:, c], positive_N))
    mean_N = np.mean(found, axis=0)
    sums_C, images_C = np.bincount(outcome.labels, mean_N), np.bincount(outcome.labels)
    return np.asarray(mean_N - (sums_C / np.maximum(images_C, 1))[outcome.labels])


def deviation_of_sum(
    influence_N: Float64Array, labels_N: Int64Array, group_N: Int64Array
) -> tuple[float, float]:
    """Standard deviation of the sum of N influences, and its degrees of freedom.

    Both NaN where a class has images of one group alone.
    """
    classes, class_N = np.unique(labels_N, return_inverse=True)
    groups, place_N = np.unique(group_N, return_inverse=True)
    cells_N = place_N * len(classes) + class_N
    shape = len(groups), len(classes)
    size = shape[0] * shape[1]
    sums_GC = np.bincount(cells_N, weights=influence_N, minlength=size).reshape(shape)
    images_GC = np.bincount(cells_N, minlength=size).reshape(shape)
    groups_C = (images_GC > 0).sum(axis=0)
    if groups_C.min() < 2:
        return float("nan"), float("nan")
    squares_C = (sums_GC**2).sum(axis=0)
    own_C = groups_C / (groups_C - 1) * squares_C
    crossed = (sums_GC.sum(axis=1) ** 2).sum() - squares_C.sum()
    variance = own_C.sum() + len(groups) / (len(groups) - 1) * crossed
    most = effective_groups(group_N) - 1
    if not own_C.sum():
        return 0.0, most
    effective_C = images_GC.sum(axis=0) ** 2 / (images_GC**2).sum(axis=0)
    freedom = own_C.sum() ** 2 / (own_C**2 / (effective_C - 1)).sum()
    return float(np.sqrt(max(variance, 0))), float(min(freedom, most))


def _influences_of(scores_N: Float64Array, positive_N: BoolArray) -> Float64Array:
    positives, negatives = np.sort(scores_N[positive_N]), np.sort(scores_N[~positive_N])
    shares_N = np.where(
        positive_N, _share_below(scores_N, negatives), 1 - _share_below(scores_N, positives)
    )
    auc = shares_N[positive_N].mean()
    return np.asarray((shares_N - auc) / np.where(positive_N, len(positives), len(negatives)))


def _share_below(scores_N: Float64Array, others: Float64Array) -> Float64Array:
    """For each score the share of the others, sorted, that are lower; a tie counts half."""
    lower = np.searchsorted(others, scores_N, "left") + np.searchsorted(others, scores_N, "right")
    return np.asarray(lower / (2 * len(others)))


def _p(difference: float, deviation: float, freedom: float) -> float:
    if not difference:
        return 1.0
    if not deviation > NOTHING:  # NaN too
        return float("nan")
    return 2 * float(special.stdtr(freedom, -abs(difference) / deviation))
