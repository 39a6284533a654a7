"""A classifier on a recorded segmenter, from outside: lineage, and a served model that is whole."""

import json
from importlib import import_module

import mlflow
import numpy as np
import pytest
from typer.testing import CliRunner

import hemaml
from hemaml.cli import app
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import plan_from
from hemaml.core.objective import load_objective
from hemaml.core.settings import tracking_uri
from hemaml.data.reading import read_dataset
from hemaml.ops.scores import segmentation_report
from hemaml.tasks.wbc_segmentation import BACKGROUND, CLASSES
from hemaml.tracking.mlflow_tracker import MlflowTracker

TYPES = {"reader": "smear_types", "patients": 6, "per_patient": 8, "size": 32}
SMEARS = {"reader": "smears", "count": 120, "size": 32, "per_slide": 20}
"""The cells of `TYPES`, and others."""
SEGMENTER = {"epochs": 1, "width": 4, "validate_every": 1}
CLASSIFIER = {"size": 16, "width": 4, "epochs": 1}


def plan(objective, data, params, **more):
    document = {"name": "mine", "objective": objective, "question": "?", "data": data}
    return plan_from({**document, "params": params, **more}, None)


@pytest.fixture
def segmenter(workplace, monkeypatch):
    """Trains one on the smears of a seed, registers it, and gives its run."""
    monkeypatch.setattr(import_module("hemaml.run"), "log_model_pictures", lambda *_: None)

    def trained(seed):
        data = {**SMEARS, "seed": seed}
        what = plan("wbc_segmentation.smgnn", data, SEGMENTER, register="cells")
        return hemaml.run(what).run_id

    return trained


def classify(segmentation, verb=hemaml.run, **more):
    params = {**CLASSIFIER, "segmentation": segmentation}
    return verb(plan("wbc_type.light_resnet", TYPES, params, **more))


@pytest.mark.slow
def test_the_model_that_is_served_takes_an_image_alone(segmenter, monkeypatch):
    run_id = segmenter(seed=1)
    by_alias, by_run = classify("models:/cells@candidate"), classify(run_id)
    assert by_alias.ending == by_run.ending == "finished"
    assert by_alias.metrics["accuracy"] == by_run.metrics["accuracy"]
    assert by_alias.metrics["mask_dice"] == by_run.metrics["mask_dice"]
    tracker = MlflowTracker(tracking_uri(), "wbc_type")
    record = tracker.get(by_alias.run_id)
    assert record.params["segmentation"] == "models:/cells/1"
    assert tracker.get(by_run.run_id).params["segmentation"] == f"runs:/{run_id}"
    learned = tracker.trained_on(f"runs:/{run_id}")
    note = record.tags["mlflow.note.content"]
    assert f"**Builds on** models:/cells/1, which has learned from {len(learned)} images" in note
    assert learned < tracker.trained_on(f"runs:/{by_alias.run_id}"), "its own images as well"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    served = mlflow.pyfunc.load_model(record.tags["model"])
    images = read_dataset({**TYPES, "seed": 7, "size": 40}).images[:3]
    found = np.stack(served.predict(list(images)))
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_images_that_are_scored_must_be_new_to_the_segmenter(segmenter):
    run_id = segmenter(seed=0)  # the same cells
    for uri in ("models:/cells@candidate", run_id):
        for verb in (hemaml.run, hemaml.evaluate):
            with pytest.raises(ConfigError, match=r"has from \d+ of \d+ .*in the fold itself"):
                classify(uri, verb)
    assert not MlflowTracker(tracking_uri(), "wbc_type").find({"kind": "run"})


@pytest.mark.slow
@pytest.mark.figures
def test_one_sweep_compares_segmenters_and_an_evaluation_adds_up_its_confusion(workplace):
    small = {
        "data": {**TYPES, "patients": 4, "per_patient": 10, "size": 40},
        "split.folds": 2,
        "params.segmenters": {
            "wbc_segmentation.smgnn": SEGMENTER,
            "wbc_segmentation.gnn_only": SEGMENTER,
            "wbc_segmentation.unet": {"width": 1 / 64, "epochs": 1},
        },
        "params.epochs": 1,
    }
    sets = [text for key, value in small.items() for text in ("--set", f"{key}={value}")]
    file = "experiments/wbc_type/light_resnet_segmenters.yaml"
    done = CliRunner().invoke(app, ["sweep", file, *sets], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    tracker = MlflowTracker(tracking_uri(), "wbc_type")
    trials = {run.params["segmentation"]: run for run in tracker.find({"kind": "trial"})}
    assert {run.tags["outcome"] for run in trials.values()} == {"finished"}
    assert len(trials) == 5
    for name, run in trials.items():
        assert ("mask_dice" in run.metrics) == name.startswith("wbc_segmentation.")

    again = [*sets, "--set", "params.segmentation=ground_truth", "--splits", "2"]
    file = "experiments/wbc_type/light_resnet.yaml"
    done = CliRunner().invoke(app, ["evaluate", file, *again], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    (above,) = tracker.find({"kind": "evaluation"})
    assert "test/mask_dice" not in above.metrics, "drawn masks have nothing to be compared with"
    assert not any(name.startswith("pooled/") for name in above.metrics), "test parts overlap"
    assert "in 2 test parts" in tracker.read_text(above.id, "figures/confusion.html")


@pytest.mark.slow
def test_an_evaluation_scores_the_masks_of_its_test_parts(workplace):
    params = {
        "segmentation": "wbc_segmentation.gnn_only",
        "segmenters": {"wbc_segmentation.gnn_only": SEGMENTER},
    }
    what = plan("wbc_type.svm", TYPES, params, split={"outer_folds": 2})
    found = hemaml.evaluate(what)
    tracker = MlflowTracker(tracking_uri(), "wbc_type")
    data = read_dataset(TYPES)
    splits = json.loads(tracker.read_text(found.run_id, "split.json"))["splits"]
    for run in tracker.find({"kind": "split"}, parent=found.run_id):
        weights = tracker.download(run.id, "weights", workplace)
        model = load_objective("wbc_type.svm").model.load(weights)
        tested = splits[int(run.tags["trial"])]["test"]["ids"]
        places = [data.ids.index(name) for name in tested]
        masks = [model.segmenter.mask(data.images[place]) for place in places]
        drawn = [data.drawn[place] for place in places]
        report = segmentation_report(masks, drawn, classes=CLASSES, background=BACKGROUND)
        assert run.metrics["test/mask_dice"] == pytest.approx(report["dice"])
        assert run.metrics["test/mask_dice"] != run.metrics["mask_dice"], "of the validation part"
    assert found.scores["segmenter_params"][1] == 0
