"""Segmentation of white blood cells: background, cytoplasm and nucleus of each pixel.

The metrics, their averages and what they are over empty classes are defined at the top of
`hemaml.ops.scores`. The one that decides is `dice`: the mean over images, then over cytoplasm and
nucleus. `dice_with_background` is the same over all three classes; papers rarely say which of the
two they print.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from hemaml.core.comparison import Comparison
from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.objective import Predictor
from hemaml.core.predictions import predictions
from hemaml.core.task import Task
from hemaml.core.types import Float64Array, UInt8Array
from hemaml.data import splits
from hemaml.data.reading import read_dataset
from hemaml.ops.resampling import Interval, SetScores
from hemaml.ops.scores import (
    ScoredImages,
    confusions,
    mean_defined,
    overlap_scores,
    scored_images,
    segmentation_report,
)
from hemaml.ops.segmentation_sets import (
    check_metric,
    compare_segmentations,
    segmentation_intervals,
    set_scores,
)

CLASSES = ("background", "cytoplasm", "nucleus")
BACKGROUND = CLASSES[0]
HELD_OUT_SEED = 0
MINIMIZED = frozenset({"hausdorff", *(f"hausdorff/{name}" for name in CLASSES)})


def read(section: Mapping[str, object]) -> Dataset:
    """The data set of an experiment's `data:` section.

    Raises:
        DataError: It has no masks, or other classes; or as for `read_dataset`.
    """
    data = read_dataset(section)
    _check(data)
    return data


def score(model: Predictor, data: Dataset) -> dict[str, float]:
    """All segmentation scores of a model's most probable classes.

    Args:
        model: Predicts H x W x 3 probabilities, in the order of `CLASSES`.
        data: Images with masks.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
    """
    return segmentation_report(
        predicted_masks(model, data), data.masks, classes=CLASSES, background=BACKGROUND
    )


def intervals(model: Predictor, data: Dataset) -> dict[str, Interval]:
    """The bootstrap 95 % interval of each score, over groups (images where there are none).

    Args:
        model: As for `score`.
        data: Images with masks.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
    """
    return segmentation_intervals(_scored(model, data), data.groups)


def resampled(model: Predictor, data: Dataset) -> SetScores:
    """All scores as a function of how often each image is in a set; the model predicts once.

    Args:
        model: As for `score`.
        data: Images with masks.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
    """
    return partial(set_scores, _scored(model, data))


def compare(candidate: Predictor, champion: Predictor, data: Dataset, metric: str) -> Comparison:
    """The candidate against the champion, by any score of `hemaml.ops.scores`.

    Means over images by Wilcoxon's signed-rank test, pooled scores by the paired bootstrap; over
    groups where there are any.

    Args:
        candidate: As for `score`.
        champion: Likewise.
        data: Images with masks.
        metric: One of the scores, such as `dice` or `hausdorff/nucleus`.

    Raises:
        UnknownName: No such score; nothing is predicted then.
        DataError: The data set has no masks, other classes, or no images.
    """
    check_metric(metric, CLASSES)
    one, other = (_scored(model, data) for model in (candidate, champion))
    return compare_segmentations(one, other, metric, data.groups)


def by_class(model: Predictor, data: Dataset) -> dict[str, float]:
    """The mean Dice of each class, background too; NaN for a class in no image.

    Args:
        model: As for `score`.
        data: Images with masks.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
    """
    dice_NC = _dice(model, data)
    return {name: mean_defined(dice_NC[:, c]) for c, name in enumerate(CLASSES)}


def by_group(model: Predictor, data: Dataset) -> dict[str, float]:
    """The score `dice` of each group's images, sorted by name; empty without groups.

    Args:
        model: As for `score`.
        data: Images with masks.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
    """
    if not data.groups:
        return {}
    dice_NC, groups_N = _dice(model, data), np.asarray(data.groups)
    return {
        name: mean_defined(mean_defined(column) for column in dice_NC[groups_N == name, 1:].T)
        for name in sorted(set(data.groups))
    }


def held_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """The rest and the held-out part, fixed by the data alone: 15 %, grouped, stratified."""
    return splits.held_out(data, seed=HELD_OUT_SEED)


def predicted_masks(model: Predictor, data: Dataset) -> list[UInt8Array]:
    """The most probable class of each pixel.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
        Diverged: A probability is not finite.
    """
    _check(data)
    return [p.argmax(axis=2).astype(np.uint8) for p in predictions(model, data.images)]


def _scored(model: Predictor, data: Dataset) -> ScoredImages:
    return scored_images(
        predicted_masks(model, data), data.masks, classes=CLASSES, background=BACKGROUND
    )


def _dice(model: Predictor, data: Dataset) -> Float64Array:
    """N x C; NaN for a class that is not in the image."""
    pixels_NCC = confusions(
        predicted_masks(model, data), data.masks, classes=CLASSES, background=BACKGROUND
    )
    return overlap_scores(pixels_NCC)["dice"]


def _check(data: Dataset) -> None:
    if data.classes != CLASSES or len(data.masks) != len(data.images):
        raise DataError(
            f"this task needs masks with the classes {CLASSES}, but {data.name!r} has "
            f"{len(data.masks)} masks for {len(data.images)} images with {data.classes}. "
            "Choose a reader of segmentation data."
        )


task = Task(
    name="wbc_segmentation",
    primary="dice",
    direction="maximize",
    read=read,
    held_out=held_out,
    folds=splits.folds,
    outer=splits.outer,
    score=score,
    compare=compare,
    by_class=by_class,
    by_group=by_group,
    figures=("overlay", "per_class"),
    minimized=MINIMIZED,
    usual_data="segmentation_wbc-1",
    intervals=intervals,
    resampled=resampled,
)
