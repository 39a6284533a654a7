"""A registered model is found again: by version, by alias, with its weights, once on this disk."""

import pytest
from safetensors.torch import load_file

from hemaml.core.errors import StoreError
from hemaml.core.experiment import plan_from
from hemaml.core.predictions import NUM_IMAGES, LivePredictions
from hemaml.data.smear_types import SmearTypes, read
from hemaml.objectives._fine_tuned import FineTunedModel, build
from hemaml.objectives.leukemia import resnet18
from hemaml.record import open_job
from hemaml.tracking.logged_model import log_model
from hemaml.tracking.mlflow_tracker import MlflowTracker

PARAMS = resnet18.Params(weights="none", size=32)
EXPERIMENT = {
    "name": "mine",
    "objective": "leukemia.resnet18",
    "question": "?",
    "data": {"reader": "smear_types", "patients": 8, "per_patient": 4, "classes": "binary"},
    "params": {"weights": "models:/cells@candidate", "size": 32},
}


@pytest.fixture
def tracker(workplace):
    return MlflowTracker(f"sqlite:///{workplace}/mlruns/mlflow.db", "leukemia")


def registered(tracker, folder, seed):
    """Logs a network with new weights as a model and registers it; its URI and its weights."""
    import torch

    torch.manual_seed(seed)
    data = read(SmearTypes(patients=4, per_patient=3, classes="binary"))
    model = FineTunedModel(PARAMS, build(PARAMS, 2), data.classes, "")
    (folder / str(seed)).mkdir()
    model.save(folder / str(seed))
    run = tracker.start("trained", {})
    live = folder / f"{seed}.safetensors"
    LivePredictions(model.predict(data.images[:NUM_IMAGES]), "cpu").save(live)
    logged = log_model(
        tracker, run.id, objective="leukemia.resnet18", weights=folder / str(seed), live=live,
        data=data,
    )  # fmt: skip
    uri = tracker.register(run.id, logged, "cells", {"seed": seed})
    return uri, load_file(folder / str(seed) / "model.safetensors")


@pytest.mark.slow
def test_weights_come_back_by_version_and_by_alias(tracker, tmp_path):
    first, weights = registered(tracker, tmp_path, 0)
    assert first == "models:/cells/1"
    assert tracker.fixed_version("models:/cells@candidate") == first
    second, newer = registered(tracker, tmp_path, 1)
    assert tracker.fixed_version("models:/cells@candidate") == second == "models:/cells/2"
    for uri, expected in ((first, weights), (second, newer), ("models:/cells@candidate", newer)):
        found = load_file(tracker.model_weights(uri) / "model.safetensors")
        assert all((found[name] == value).all() for name, value in expected.items())
    assert tracker.model_weights(first) == tracker.model_weights(first)

    plan = plan_from(EXPERIMENT, None)
    assert open_job(plan).plan.experiment.params["weights"] == second, "an alias may move"


def test_what_is_not_registered_is_an_error_that_names_it(tracker):
    with pytest.raises(StoreError, match="nothing"):
        tracker.fixed_version("models:/nothing@candidate")
    with pytest.raises(StoreError, match="nothing"):
        tracker.model_weights("models:/nothing/3")
