"""Segmentation of white blood cells: background, cytoplasm and nucleus of each pixel.

The metrics, their averages and what they are over empty classes are defined at the top of
`hemaml.ops.scores`. The one that decides is `dice`: the mean over images, then over cytoplasm and
nucleus. `dice_with_background` is the same over all three classes; papers rarely say which of the
two they print.
"""

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.objective import Predictor
from hemaml.core.task import Task
from hemaml.data import splits
from hemaml.data.reading import read_dataset
from hemaml.ops.scores import segmentation_report

CLASSES = ("background", "cytoplasm", "nucleus")
HELD_OUT_SEED = 0


def score(model: Predictor, data: Dataset) -> dict[str, float]:
    """All segmentation scores of a model's most probable classes.

    Args:
        model: Predicts H x W x 3 probabilities, in the order of `CLASSES`.
        data: Images with masks.

    Raises:
        DataError: The data set has no masks, other classes, or no images.
    """
    _check(data)
    predicted = [p.argmax(axis=2).astype(np.uint8) for p in model.predict(data.images)]
    return segmentation_report(predicted, data.masks, classes=CLASSES, background=CLASSES[0])


def held_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """The rest and the held-out part, fixed by the data alone: 15 %, grouped, stratified."""
    return splits.held_out(data, seed=HELD_OUT_SEED)


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
    read=read_dataset,
    held_out=held_out,
    folds=splits.folds,
    outer=splits.outer,
    score=score,
    figures=("overlay", "per_class"),
)
