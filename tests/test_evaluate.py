"""Evaluation over outer splits: how many there are, and what the run says of them."""

from dataclasses import replace

import pytest

import hemaml
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import plan_from
from hemaml.core.settings import tracking_uri
from hemaml.tracking.mlflow_tracker import MlflowTracker


def read(section):
    """Three official folds of four patients with two images each."""
    import stub

    parts = tuple(f"fold_{i // 8}" for i in range(24))
    groups = tuple(f"p{i // 4 * 2 + i % 2}" for i in range(24))  # of both classes alike
    return replace(stub.read(section), parts=parts, groups=groups)


@pytest.fixture
def plan(stub, monkeypatch):
    task = replace(stub.task, read=read)
    monkeypatch.setattr(stub, "objective", replace(stub.objective, task=task))
    return lambda **split: plan_from({**stub.EXPERIMENT, "split": split}, None)


def record_of(result):
    return MlflowTracker(tracking_uri(), "stub").get(result.run_id)


def test_official_folds_are_all_scored_without_being_counted(plan):
    result = hemaml.evaluate(plan(folds="official", val=0.25))
    assert len(result.splits) == 3
    tags = record_of(result).tags
    assert (tags["splits"], tags["split.kind"], tags["kind"]) == ("3", "official", "evaluation")
    assert "3 official folds, each the test part once; 25%" in tags["mlflow.note.content"]


def test_another_number_than_that_of_official_folds_is_refused_before_any_run(plan):
    with pytest.raises(ConfigError, match="Leave `splits` out"):
        hemaml.evaluate(plan(folds="official"), splits=4)


def test_an_image_split_on_data_with_patients_says_that_it_leaks(plan):
    result = hemaml.evaluate(plan(group="none", test=0.2), splits=2)
    tags = record_of(result).tags
    assert (tags["split.kind"], tags["split.leaky"]) == ("leaky", "true")
    assert (
        "2 random splits into 70% train, 10% validation and 20% test" in tags["mlflow.note.content"]
    )
    assert "LEAKY" in tags["mlflow.note.content"]


def test_random_splits_are_five(plan):
    result = hemaml.evaluate(plan())
    assert len(result.splits) == 5
    assert record_of(result).tags["split.kind"] == "grouped"
