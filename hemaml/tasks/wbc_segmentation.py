"""White-blood-cell segmentation: nucleus, cytoplasm and background of one cell an image.

Scores are means over images, each defined in `hemaml.ops.scores`: `dice` over nucleus and
cytoplasm (the paper does not say whether its own includes the background, so
`dice_with_background` always stands beside it), and `iou`, `ppv`, `sensitivity`, `accuracy` and
`hausdorff` (pixels), in all and by class.
"""

from functools import partial

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Model
from hemaml.core.task import Task
from hemaml.data import splits
from hemaml.data.reading import read_dataset
from hemaml.ops.scores import segmentation_report

CLASSES = ("background", "cytoplasm", "nucleus")
HELD_OUT_SEED = 20240101
"""Fixes the held-out part of every data set of this task for good."""


def score(model: Model, data: Dataset) -> dict[str, float]:
    """Scores of the most probable class against the masks; undefined ones are left out."""
    predicted = [p.argmax(axis=2).astype(np.uint8) for p in model.predict(data.images)]
    report = segmentation_report(predicted, data.masks, classes=data.classes, background=CLASSES[0])
    return {name: value for name, value in report.items() if value == value}


task = Task(
    name="wbc_segmentation",
    primary="dice",
    direction="maximize",
    read=read_dataset,
    held_out=partial(splits.held_out, seed=HELD_OUT_SEED),
    folds=splits.folds,
    outer=splits.outer,
    score=score,
    figures=("overlay", "per_class"),
)
