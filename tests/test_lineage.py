"""A registered model as a start: allowed where it has learned from no image that is scored."""

from importlib import import_module

import pytest
from mlflow import MlflowClient

import hemaml
from hemaml.core import settings
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import plan_from

CELLS = {"reader": "smear_types", "patients": 16, "per_patient": 4, "classes": "binary", "size": 32}
START = {"weights": "none", "size": 32, "epochs": 1, "unfrozen_blocks": 0}
GRAPH = {"size": 32, "k": 2, "hidden": 4, "epochs": 1, "mlp": False, "transductive": False}


@pytest.fixture
def done(workplace, monkeypatch):
    """Trains one point without pictures; `name` registers it."""
    monkeypatch.setattr(import_module("hemaml.run"), "log_model_pictures", lambda *_: None)

    def done(params, data=None, name=None, verb=hemaml.run, **split):
        model = "resnet18" if "unfrozen_blocks" in params else "resnet18_gcn"
        document = {
            "name": "mine",
            "objective": f"leukemia.{model}",
            "question": "?",
            "data": {**CELLS, **(data or {})},
            "split": {"val": 0.25, **split},
            "params": params,
        }
        return verb(plan_from({**document, **({"register": name} if name else {})}, None))

    return done


@pytest.mark.slow
def test_images_that_are_scored_must_be_new_to_where_it_starts(done):
    first = done(START, name="cells").run_id
    graph = {**GRAPH, "weights": "models:/cells@candidate"}
    assert done(graph).ending == "finished", "the same split, so validation images are new to it"
    for change in ({"seed": 5}, {"folds": 3}, {"verb": hemaml.evaluate}):
        with pytest.raises(ConfigError, match=r"but models:/cells/1 has from \d+ of \d+"):
            done(graph, **change)

    onward = {**START, "weights": "models:/cells@candidate"}
    assert done(onward, {"seed": 1}, name="others").ending == "finished", "other images"
    uri = settings.tracking_uri()
    told = "Began from.** models:/cells/1: all 120 tensors of resnet18 matched"
    assert told in MlflowClient(uri, uri).get_model_version("others", "1").description
    assert done({**graph, "k": 3, "weights": f"runs:/{first}"}).ending == "finished"
    with pytest.raises(ConfigError, match=rf"but runs:/{first} has from \d+ of \d+"):
        done({**graph, "weights": f"runs:/{first}"}, folds=3)
    later = {**GRAPH, "weights": "models:/others@candidate"}
    with pytest.raises(ConfigError, match="but models:/others/1 has from"):
        done(later, verb=hemaml.evaluate)
