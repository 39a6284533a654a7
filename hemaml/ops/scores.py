"""Segmentation scores, each defined here and nowhere else.

For one image and one class c, P is the set of pixels predicted as c, T the set of pixels labelled
c in the ground truth, and N the number of pixels of the image:

    dice         2 |P & T| / (|P| + |T|)
    iou          |P & T| / |P | T|
    ppv          |P & T| / |P|                       (positive predictive value, precision)
    sensitivity  |P & T| / |T|                       (recall)
    accuracy     share of the N pixels that are in both of P and T or in neither
    hausdorff    max(h(P, T), h(T, P)), h(A, B) the largest distance of a pixel of A to the nearest
                 pixel of B: Euclidean, between centres, in pixels, over all pixels of the sets
                 (not their borders alone, and no 95th percentile)

A class in neither P nor T has no score: NaN, left out of all means. A class in one of them only
scores 0 in dice, iou, ppv and sensitivity, its accuracy as defined, and the image's diagonal,
sqrt(H^2 + W^2), in hausdorff.

Over a set of images:

    <score>/<class>             mean over the images that have this score
    <score>                     mean of `<score>/<class>` over the foreground classes
    dice_with_background        mean of `dice/<class>` over all classes
    dice_pooled                 mean over the foreground classes of
                                2 sum |P & T| / (sum |P| + sum |T|), sums over all images
    dice_pooled_with_background the same over all classes

The SMGNN paper (section 4.3) names dice, hausdorff, ppv, accuracy and sensitivity and says neither
how they are averaged nor whether background counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemaml.core.compiled import compiled
from hemaml.core.errors import ConfigError, DataError, UnknownName
from hemaml.core.types import Float64Array, Int64Array, UInt8Array

SCORES = ("dice", "iou", "ppv", "sensitivity", "accuracy", "hausdorff")
PERFECT = dict.fromkeys(SCORES, 1.0) | {"hausdorff": 0.0}


@dataclass(frozen=True, slots=True)
class ScoredImages:
    """The scores of N images one by one, of which those of the set are made.

    Attributes:
        classes: Names of the C classes, in index order.
        foreground: Those that the totals average over.
        per_image: N times what `segmentation_scores` gives.
        confusions: N x C x C pixels by true class, then predicted class.
    """

    classes: tuple[str, ...]
    foreground: tuple[str, ...]
    per_image: Sequence[Mapping[str, float]]
    confusions: Int64Array


def segmentation_report(
    predicted: Sequence[UInt8Array],
    truth: Sequence[UInt8Array],
    *,
    classes: Sequence[str],
    background: str,
) -> dict[str, float]:
    """All scores of a set of images, by the names and definitions at the top of this module.

    Args:
        predicted: Class indices, H x W each; sizes may differ between images.
        truth: Of the same shapes, in the same order.
        classes: Names of the classes, in index order.
        background: The class that is not foreground.

    Returns:
        Metrics by name; NaN where no image defines one.

    Raises:
        UnknownName: `background` is none of the classes.
        ConfigError: The images do not fit each other or the classes.
        DataError: No images.
    """
    images = scored_images(predicted, truth, classes=classes, background=background)
    report = mean_scores(images.per_image, foreground=images.foreground)
    dice = dict(zip(classes, overlap_scores(images.confusions.sum(axis=0))["dice"], strict=True))
    report["dice_pooled"] = mean_defined(dice[name] for name in images.foreground)
    report["dice_pooled_with_background"] = mean_defined(dice.values())
    return report


def scored_images(
    predicted: Sequence[UInt8Array],
    truth: Sequence[UInt8Array],
    *,
    classes: Sequence[str],
    background: str,
) -> ScoredImages:
    """Scores of each image; arguments and errors are those of `segmentation_report`."""
    confusions_NCC = confusions(predicted, truth, classes=classes, background=background)
    return ScoredImages(
        tuple(classes),
        tuple(name for name in classes if name != background),
        [
            _image_scores(p, t, confusion_CC, classes)
            for p, t, confusion_CC in zip(predicted, truth, confusions_NCC, strict=True)
        ],
        confusions_NCC,
    )


def confusions(
    predicted: Sequence[UInt8Array],
    truth: Sequence[UInt8Array],
    *,
    classes: Sequence[str],
    background: str,
) -> Int64Array:
    """N x C x C pixels; arguments and errors are those of `segmentation_report`."""
    if background not in classes:
        raise UnknownName("background class", background, classes)
    if len(predicted) != len(truth):
        raise ConfigError(
            f"There must be one prediction an image, but got {len(predicted)} predictions for "
            f"{len(truth)} images."
        )
    if not len(truth):
        raise DataError("Scores need at least one image, but the set is empty.")
    return np.stack([_confusion(p, t, classes) for p, t in zip(predicted, truth, strict=True)])


def segmentation_scores(
    predicted: UInt8Array, truth: UInt8Array, *, classes: Sequence[str]
) -> dict[str, float]:
    """Scores of one image, as `<score>/<class>`; NaN for a class in neither mask.

    Args:
        predicted: H x W class indices.
        truth: H x W class indices.
        classes: Names of the classes, in index order.

    Raises:
        ConfigError: Masks of different shapes, or an index without a class.
    """
    return _image_scores(predicted, truth, _confusion(predicted, truth, classes), classes)


def _image_scores(
    predicted: UInt8Array, truth: UInt8Array, confusion: Int64Array, classes: Sequence[str]
) -> dict[str, float]:
    columns = overlap_scores(confusion)
    columns["hausdorff"] = np.array(
        [_hausdorff(predicted, truth, index) for index in range(len(classes))]
    )
    return {
        f"{score}/{name}": float(columns[score][index])
        for index, name in enumerate(classes)
        for score in SCORES
    }


def mean_scores(
    per_image: Sequence[Mapping[str, float]], *, foreground: Sequence[str]
) -> dict[str, float]:
    """Means over images, then over classes; NaN is left out.

    Args:
        per_image: Results of `segmentation_scores` with the same classes.
        foreground: The classes that the totals average over.

    Raises:
        DataError: No images.
        UnknownName: A foreground class without scores.
    """
    if not per_image:
        raise DataError("Scores need at least one image, but the set is empty.")
    means = {key: mean_defined(scores[key] for scores in per_image) for key in per_image[0]}
    classes = [key.removeprefix("dice/") for key in means if key.startswith("dice/")]
    for name in foreground:
        if name not in classes:
            raise UnknownName("foreground class", name, classes)
    totals = {
        score: mean_defined(means[f"{score}/{name}"] for name in foreground) for score in SCORES
    }
    totals["dice_with_background"] = mean_defined(means[f"dice/{name}"] for name in classes)
    return {**totals, **means}


def _confusion(predicted: UInt8Array, truth: UInt8Array, classes: Sequence[str]) -> Int64Array:
    """Pixels by true class (rows) and predicted class (columns)."""
    if predicted.shape != truth.shape or truth.ndim != 2 or truth.size == 0:
        raise ConfigError(
            "A prediction must have the shape H x W of its image, but got "
            f"{predicted.shape} for {truth.shape}."
        )
    count = len(classes)
    top = max(int(predicted.max()), int(truth.max()))
    if top >= count:
        raise ConfigError(
            f"Class indices must be below {count} ({', '.join(classes)}), but got {top}."
        )
    pairs = truth.astype(np.int64).ravel() * count + predicted.ravel()
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def overlap_scores(confusion: NDArray[Any]) -> dict[str, Float64Array]:
    """All scores but the distance, as ... x C, of ... x C x C pixels; NaN where undefined."""
    shared = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    in_truth, in_predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    union = in_truth + in_predicted - shared
    pixels = in_truth.sum(axis=-1, keepdims=True)
    defined = np.where(union > 0, 1.0, np.nan)
    # Where a denominator is 0, so is `shared`: 1 stands in for it and the score is 0.
    return {
        "dice": defined * 2 * shared / np.maximum(in_truth + in_predicted, 1),
        "iou": defined * shared / np.maximum(union, 1),
        "ppv": defined * shared / np.maximum(in_predicted, 1),
        "sensitivity": defined * shared / np.maximum(in_truth, 1),
        "accuracy": defined * (pixels - union + shared) / pixels,
    }


def _hausdorff(predicted: UInt8Array, truth: UInt8Array, index: int) -> float:
    p, t = predicted == index, truth == index
    if not p.any() and not t.any():
        return float("nan")
    if not p.any() or not t.any():
        return float(np.hypot(*p.shape))
    return float(np.sqrt(max(_farthest(p, t), _farthest(t, p))))


@compiled
def _farthest(a: UInt8Array, b: UInt8Array) -> int:
    """Largest squared distance of a pixel of `a` to the nearest pixel of `b`; both not empty.

    First the distance of each pixel to `b` within its column, then for each pixel of `a` a search
    over the columns, from its own outwards. It ends where no farther column can be nearer, or
    where the pixel can no longer be the farthest.
    """
    height, width = a.shape
    unreachable = height + width
    in_column = np.empty((height, width), dtype=np.int64)
    for column in range(width):
        gap = unreachable
        for row in range(height):
            gap = 0 if b[row, column] else gap + 1
            in_column[row, column] = gap
        gap = unreachable
        for row in range(height - 1, -1, -1):
            gap = 0 if b[row, column] else gap + 1
            in_column[row, column] = min(gap, in_column[row, column])

    farthest = 0
    for row in range(height):
        for column in range(width):
            if not a[row, column] or b[row, column]:
                continue
            nearest = in_column[row, column] ** 2
            for step in range(1, width):
                if step * step >= nearest or nearest <= farthest:
                    break
                if column >= step:
                    nearest = min(nearest, step * step + in_column[row, column - step] ** 2)
                if column + step < width:
                    nearest = min(nearest, step * step + in_column[row, column + step] ** 2)
            farthest = max(farthest, nearest)
    return farthest


def mean_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
