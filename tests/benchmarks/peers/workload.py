"""The sweep that hemaml and its peers run: same data, same split, same 24 points, same seeds."""

import os

from hemaml.core.documents import canonical_json
from hemaml.core.seeding import derive_seed
from hemaml.core.sweep import Split
from hemaml.core.task import Fold
from hemaml.objectives.wbc_segmentation.smgnn import Params
from hemaml.tasks.wbc_segmentation import task

SMEARS = {"reader": "smears", "count": 60, "size": 120}
REAL = {"reader": "segmentation_wbc", "set": 1}
DATA = REAL if os.environ.get("HEMAML_DATA") else SMEARS
EPOCHS = int(os.environ.get("BENCH_EPOCHS", "4"))
FIXED = {"epochs": EPOCHS, "validate_every": 1, "batch_size": 8}
GRID = {
    "scale": [9, 12, 16, 25],
    "lr": [0.003, 0.01, 0.03],
    "lambda": [0.1, 1.0],
}


def fold() -> Fold:
    """What a trial may see: training and validation part."""
    (only,) = task.folds(task.held_out(task.read(DATA))[0], Split())
    return only


def params(point) -> Params:
    return Params.model_validate({**FIXED, **point})


def seed(point) -> int:
    """The seed that hemaml gives the trial of this point, so that all train the same networks."""
    return derive_seed(derive_seed(0, "trial", canonical_json(point)), "fold", 0)


def point_name(point) -> str:
    """The same for the same point, whatever order its values are in."""
    return canonical_json(point)
