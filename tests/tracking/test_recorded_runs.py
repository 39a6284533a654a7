"""The model of a run, named by the run: its weights, its objective, and what it learned from."""

import json

import pytest

from hemaml.core.errors import StoreError
from hemaml.core.experiment import plan_from
from hemaml.core.tracker import is_recorded
from hemaml.record import open_job
from hemaml.tracking.mlflow_tracker import MlflowTracker

EXPERIMENT = {
    "name": "mine",
    "objective": "wbc_type.light_resnet",
    "question": "?",
    "data": {"reader": "smear_types", "patients": 6, "per_patient": 4, "size": 32},
    "params": {"size": 16},
    "sweep": {"first": [{"segmentation": "models:/cells@candidate"}]},
}
SPACE = {"segmentation": {"type": "categorical", "choices": ["none", "models:/cells@candidate"]}}


@pytest.fixture
def tracker(workplace):
    return MlflowTracker(f"sqlite:///{workplace}/mlruns/mlflow.db", "wbc_segmentation")


def trained(tracker, folder, *parts, parent=None, **tags):
    """A run that keeps weights; each part is a split's training images."""
    tags = {"kind": "run", "objective": "wbc_segmentation.unet", **tags}
    run = tracker.start("trained", tags, parent)
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "config.json").write_text(run.id)
    run.log_folder(folder / "weights", "weights")
    if parts:
        split = {"splits": [{"train": {"contents": list(part)}} for part in parts]}
        run.log_text(json.dumps(split), "split.json")
    return run


def test_a_run_gives_its_weights_and_its_objective(tracker, tmp_path):
    run = trained(tracker, tmp_path, "ab")
    uri = f"runs:/{run.id}"
    assert is_recorded(uri) and is_recorded("models:/cells/1") and not is_recorded("none")
    assert tracker.objective_of(uri) == "wbc_segmentation.unet"
    weights = tracker.model_weights(uri)
    assert (weights / "config.json").read_text() == run.id
    assert tracker.model_weights(uri) == weights
    assert tracker.trained_on(uri) == {"a", "b"}


def test_a_run_that_took_over_a_result_or_made_a_model_of_one_has_the_weights_of_that(
    tracker, tmp_path
):
    source = trained(tracker, tmp_path, "ab")
    for name in ("reused_from", "model_run"):
        other = tracker.start("other", {"kind": "run", name: source.id})
        weights = tracker.model_weights(f"runs:/{other.id}")
        assert (weights / "config.json").read_text() == source.id


def test_what_a_run_learned_from_is_in_its_own_split_or_in_that_above(tracker, tmp_path):
    sweep = trained(tracker, tmp_path, "ab", "cd", kind="sweep")
    confirmed = trained(tracker, tmp_path, parent=sweep.id, kind="confirm", trial=2)
    evaluation = trained(tracker, tmp_path, "ab", "cd", "ef", kind="evaluation")
    split = trained(tracker, tmp_path, parent=evaluation.id, kind="split", trial=1)
    expected = {sweep.id: "ab", confirmed.id: "ab", split.id: "cd"}
    for run_id, images in expected.items():
        assert tracker.trained_on(f"runs:/{run_id}") == set(images)


def test_what_it_began_from_counts_too(tracker, tmp_path):
    first = trained(tracker, tmp_path, "ab")
    second = trained(tracker, tmp_path, "cd")
    second.log_params({"weights": f"runs:/{first.id}", "segmentation": "none"})
    assert tracker.trained_on(f"runs:/{second.id}") == set("abcd")


def test_what_is_no_model_is_an_error(tracker):
    for uri in ("runs:/" + "0" * 32, "models:/nothing/1"):
        for ask in (tracker.model_weights, tracker.objective_of, tracker.trained_on):
            with pytest.raises(StoreError):
                ask(uri)


def test_an_alias_in_a_search_space_is_fixed_as_well(tracker, monkeypatch):
    monkeypatch.setattr(
        MlflowTracker, "fixed_version", lambda self, uri: uri.replace("@candidate", "/4")
    )
    plan = open_job(plan_from(EXPERIMENT, SPACE)).plan
    assert plan.space.root["segmentation"].choices == ["none", "models:/cells/4"]
    assert plan.experiment.sweep.first == ({"segmentation": "models:/cells/4"},)
    bare = plan_from({**EXPERIMENT, "sweep": {}}, None)
    assert open_job(bare).plan is bare
