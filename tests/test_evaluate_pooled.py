"""Each group left out once: parts of one class alone, and all predictions scored together."""

import json

import numpy as np
import pytest

import hemaml
from hemaml.core.experiment import plan_from
from hemaml.core.settings import tracking_uri
from hemaml.tracking.mlflow_tracker import MlflowTracker


def plan_of(**split):
    document = {
        "name": "each",
        "objective": "lymphoma.resnet50",
        "question": "?",
        "data": {"reader": "smear_types", "classes": "binary", "patients": 6, "per_patient": 3,
                 "size": 40},
        "split": split,
        "params": {"backbone": "resnet18", "weights": "none", "size": 32, "epochs": 1,
                   "batch_size": 8, "class_weights": False},
    }  # fmt: skip
    return plan_from(document, None)


@pytest.mark.slow
@pytest.mark.figures
def test_predictions_of_parts_of_one_class_are_scored_together(workplace, tmp_path):
    result = hemaml.evaluate(plan_of(folds="each_group", val=0.4))
    assert len(result.splits) == 6  # patients, each with one class
    assert all("auc" not in row for row in result.splits), "undefined of one class"
    assert "auc" not in result.scores and 0 <= result.pooled["auc"] <= 1
    accuracy = [row["accuracy"] for row in result.splits]
    assert result.scores["accuracy"][0] == pytest.approx(np.mean(accuracy))
    assert result.pooled["accuracy"] == pytest.approx(np.mean(accuracy))  # patients are equal
    low, high = result.pooled_intervals["accuracy"]
    assert low <= result.pooled["accuracy"] <= high
    tracker = MlflowTracker(tracking_uri(), "lymphoma")
    record = tracker.get(result.run_id)
    assert record.metrics["pooled/auc"] == result.pooled["auc"]
    assert "Of all test predictions together" in record.tags["mlflow.note.content"]
    assert tracker.download(result.run_id, "figures/confusion.png", tmp_path).is_file()
    split = json.loads(tracker.download(result.run_id, "split.json", tmp_path).read_text())
    assert split["kind"] == "grouped"


@pytest.mark.slow
@pytest.mark.figures
def test_random_splits_are_not_pooled_and_each_has_its_figures(workplace, tmp_path):
    result = hemaml.evaluate(plan_of(test=0.3, outer_val=0.3), splits=2)
    assert result.pooled == {}
    tracker = MlflowTracker(tracking_uri(), "lymphoma")
    parts = tracker.find({"kind": "split"}, parent=result.run_id)
    assert len(parts) == 2
    for part in parts:
        for name in ("scores", "confusion", "roc", "reliability"):
            assert tracker.download(part.id, f"figures/{name}.png", tmp_path / part.id).is_file()
