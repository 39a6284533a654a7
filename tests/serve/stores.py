"""Stores with champions of each kind of model, small enough to be trained in seconds.

`python tests/serve/stores.py FOLDER` makes one to try `hemaml serve` on; run that in the folder.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import hemaml
from hemaml.core.experiment import plan_from

CELLS = {"reader": "smear_types", "patients": 12, "per_patient": 4, "classes": "binary", "size": 48}
TYPES = {**CELLS, "patients": 8, "per_patient": 5, "classes": "types"}
NETWORK = {"weights": "none", "size": 64, "epochs": 2, "batch_size": 16}
KINDS = {
    "leukemia": (
        "leukemia.resnet18_gcn", CELLS,
        {"weights": "none", "size": 32, "epochs": 20, "k": 4, "hidden": 16, "mlp": False,
         "transductive": False},
    ),
    "lymphoma": ("lymphoma.resnet50", CELLS, {**NETWORK, "backbone": "resnet18"}),
    "wbc_segmentation": (
        "wbc_segmentation.smgnn", {"reader": "smears", "count": 24, "size": 64},
        {"epochs": 6, "validate_every": 3, "batch_size": 8},
    ),
    "wbc_type": ("wbc_type.light_resnet", TYPES, {"segmentation": "none", "epochs": 2, "size": 32}),
}  # fmt: skip
"""By registered name: objective, data, parameters."""


def trained(kind, **params):
    """The id of a run that registers a model of a kind, without the pictures of others' tests."""
    objective, data, usual = KINDS[kind]
    document = {
        "name": kind,
        "objective": objective,
        "question": "Does it serve?",
        "intended_use": "Tests alone.",
        "register": kind,
        "data": data,
        "params": {**usual, **params},
    }
    with (
        patch.object(import_module("hemaml.run"), "log_model_pictures", return_value=None),
        patch("hemaml.training.measurements", return_value={}),
    ):
        return hemaml.run(plan_from(document, None)).run_id


def crowned(kind, **params):
    """Makes a new model of a kind the champion; the promotion."""
    return hemaml.promote(kind, run=trained(kind, **params), force="a test of the server")


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlruns/mlflow.db"
    for kind in KINDS:
        print(kind, crowned(kind).outcome, flush=True)
