"""The sweep of a graph network that hemaml and its peers run: same data, split, points, epochs."""

import os

from hemaml.core.sweep import Split
from hemaml.core.task import Fold
from hemaml.tasks.leukemia import task

GENERATED = {"reader": "smear_types", "classes": "binary", "patients": 30, "size": 128}
DATA = {"reader": "all_images"} if os.environ.get("HEMAML_DATA") else GENERATED
EPOCHS, SIZE, VALIDATE_EVERY = 400, 128, 20
GRID = {"lr": [0.001, 0.003, 0.01, 0.03], "k": [5, 10, 20], "hidden": [64, 128]}


def fold() -> Fold:
    """What a trial may see: training and validation part."""
    (only,) = task.folds(task.held_out(task.read(DATA))[0], Split())
    return only
