"""Recorded models on other data: scores beside scores, where they are told, and what is refused."""

import csv
import io
import json
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

import hemaml
from hemaml import conclude
from hemaml.cli import app
from hemaml.core import objective, settings
from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.core.experiment import plan_from
from hemaml.tracking.mlflow_tracker import MlflowTracker

SMEARS = "experiments/wbc_segmentation/smgnn_smears.yaml"
TINY = ["data.count=16", "data.size=48", "params.epochs=2", "params.validate_every=1"]
MODULE = import_module("hemaml.transfer")
OTHERS = {"reader": "smears", "count": 6, "size": 40, "seed": 9}


def call(*arguments):
    result = CliRunner().invoke(app, ["transfer", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


def tracker(task="stub"):
    return MlflowTracker(settings.tracking_uri(), task)


def other_laboratory(section):
    """Images as the stub's are, of other content."""
    import stub

    images = tuple(255 - image for image in stub.read(section).images)
    ids = tuple(f"other-{i}" for i in range(len(images)))
    return replace(stub.read(section), name="other", ids=ids, images=images, digests=ids)


@pytest.fixture
def stub_data(stub, monkeypatch):
    """`reader: stub` is the data of training, any other reader another laboratory's."""
    monkeypatch.setattr(
        MODULE,
        "read_dataset",
        lambda data: (stub.read if data["reader"] == "stub" else other_laboratory)(data),
    )
    return plan_from(stub.EXPERIMENT, None)


def test_models_of_all_splits_stand_beside_their_test_parts(stub_data):
    evaluation = hemaml.evaluate(stub_data, splits=3)
    code, shown = call(evaluation.run_id, "other", "--set", "count=10")
    assert code == 0 and "3 models of stub on 10 images of other" in shown
    assert "on stub, test parts of 3 splits" in shown
    (record,) = tracker().find({"kind": "transfer"})
    assert record.tags["outcome"] == "finished" and record.tags["source.run"] == evaluation.run_id
    assert record.metrics["source/score"] == evaluation.scores["score"][0]
    assert record.metrics["target/score"] == pytest.approx(0.5)
    told = tracker().get(evaluation.run_id).tags["transfer.other"]
    assert told == f"score 0.5000, run {record.id}"
    one = tracker().find({"kind": "split"}, parent=evaluation.run_id)[0]
    assert "on stub, its test part" in call(one.id, "other")[1]
    record = tracker().find({"kind": "transfer"})[-1]
    assert record.tags["source.run"] == one.id
    assert tracker().get(one.id).tags["transfer.other"] == f"score 0.5000, run {record.id}"
    assert tracker().get(evaluation.run_id).tags["transfer.other"] == told, "that of all splits"


def test_a_run_is_named_by_its_uri_as_by_its_id(stub_data):
    run = hemaml.run(stub_data)
    for name in (run.run_id, f"runs:/{run.run_id}"):
        code, shown = call(name, "other")
        assert code == 0 and "one model of stub" in shown
    by_id, by_uri = tracker().find({"kind": "transfer"})
    assert by_id.tags["model"] == by_uri.tags["model"] == run.run_id
    assert by_id.metrics == by_uri.metrics


def test_images_that_the_model_has_seen_are_refused(stub_data):
    run = hemaml.run(stub_data)
    for model in (run.run_id, hemaml.evaluate(stub_data, splits=2).run_id):
        with pytest.raises(ConfigError, match=r"was chosen by, \d+ of the 24 of stub"):
            call(model, "stub")
    assert tracker().find({"kind": "transfer"}) == []


def test_other_classes_and_runs_without_a_model_are_refused(stub_data, monkeypatch):
    import stub

    run = hemaml.run(stub_data)
    reader = lambda data: replace(other_laboratory(data), classes=("yes", "no"))  # noqa: E731
    monkeypatch.setattr(MODULE, "read_dataset", reader)
    with pytest.raises(ConfigError, match="its own classes, no, yes, in this order, but other has"):
        call(run.run_id, "other")
    with pytest.raises(StoreError, match="must have what is asked for.*Correct the name or id"):
        call("0" * 32, "other")
    with pytest.raises(ConfigError, match="models:/name/version, but got 'models:/stub'"):
        call("models:/stub", "other")
    with pytest.raises(UnknownName, match="unknown registered model"):
        call("models:/stub/1", "other")
    sweep = hemaml.sweep(plan_from(stub.EXPERIMENT, stub.SPACE))
    trial = tracker().find({"kind": "trial"}, parent=sweep.run_id)[0]
    with pytest.raises(ConfigError, match="is a run of kind 'trial'"):
        call(trial.id, "other")


def target_scores(uri):
    """What a logged model is said to reach on other data."""
    client = MlflowClient(settings.tracking_uri())
    metrics = client.get_logged_model(uri.removeprefix("models:/")).metrics or []
    return [metric.value for metric in metrics if metric.key == "target/score"]


@pytest.fixture
def swept(stub_data, stub, monkeypatch):
    """Sweeps the stub and `stub.other`, whose weights another class reads; draws no study."""

    class Other(stub.StubModel):
        def save(self, folder):
            (folder / "other.json").write_text(json.dumps({"x": self.x}))

        @classmethod
        def load(cls, folder):
            return cls(**json.loads((folder / "other.json").read_text()))

    def fit(params, fold, context):
        """What it predicts differs between seeds."""
        for step in stub.fit(params, fold, context):
            yield replace(step, model=Other(context.seed % 1000 / 1000))

    other = SimpleNamespace(objective=replace(stub.objective, model=Other, fit=fit))
    monkeypatch.setitem(sys.modules, "hemaml.objectives.stub.other", other)
    monkeypatch.setattr(objective, "objective_names", lambda: ["stub.stub", "stub.other"])
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])

    def swept(*first, seeds, register=None):
        how = {"first": first, "trials": 1, "sampler": "random", "confirm_seeds": seeds}
        choices = {"type": "categorical", "choices": ["stub.stub", "stub.other"]}
        document = {**stub.EXPERIMENT, "register": register, "sweep": how}
        return hemaml.sweep(plan_from(document, {**stub.SPACE, "objective": choices}))

    return swept


def test_a_version_is_scored_as_itself_after_a_better_winner(swept):
    worse, better = {"objective": "stub.stub", "x": 0.9}, {"objective": "stub.other", "x": 0.3}
    sweep = swept(worse, better, seeds=1, register="cells")
    (seed,) = tracker().find({"kind": "confirm"}, parent=sweep.run_id)
    first = tracker().get(sweep.run_id).tags["model"]
    hemaml.resume(sweep.id, overrides=["sweep.trials=2"])
    second = tracker().get(sweep.run_id).tags["model"]
    found = hemaml.transfer("models:/cells/1", {"reader": "x"})
    assert found.scores["score"][0] == pytest.approx(0.9)
    assert found.source_scores["score"][0] == seed.metrics["score"] == sweep.confirmed["score"][0]
    assert target_scores(first) == [found.scores["score"][0]] and target_scores(second) == []
    record = tracker().get(found.run_id)
    assert (record.tags["objective"], record.tags["source.run"]) == ("stub.stub", seed.id)
    told = f"score 0.9000, run {found.run_id}"
    newest, oldest = hemaml.models("cells")
    assert oldest.tags["transfer.other"] == tracker().get(seed.id).tags["transfer.other"] == told
    assert "transfer.other" not in newest.tags | tracker().get(sweep.run_id).tags

    found = hemaml.transfer("models:/cells/2", {"reader": "x"})
    assert target_scores(second) == [found.scores["score"][0]]
    told = tracker().get(sweep.run_id).tags["transfer.other"]
    assert told.endswith(found.run_id), "the sweep's winner"


def test_each_seed_of_a_winner_has_its_own_scores(swept):
    sweep = swept({"objective": "stub.other", "x": 0.3}, seeds=2)
    model, served = (tracker().get(sweep.run_id).tags[name] for name in ("model", "model_run"))
    seeds = tracker().find({"kind": "confirm"}, parent=sweep.run_id)
    (other,) = (seed for seed in seeds if seed.id != served)
    found = hemaml.transfer(other.id, {"reader": "x"})
    assert found.source_scores["score"][0] == other.metrics["score"]
    assert tracker().get(other.id).tags["transfer.other"].endswith(found.run_id)
    assert "transfer.other" not in tracker().get(sweep.run_id).tags and target_scores(model) == []
    of_sweep = hemaml.transfer(sweep.run_id, {"reader": "x"})
    assert of_sweep.scores["score"] != found.scores["score"]
    assert of_sweep.source_scores["score"][0] == tracker().get(served).metrics["score"]
    assert tracker().get(sweep.run_id).tags["transfer.other"].endswith(of_sweep.run_id)
    assert target_scores(model) == [of_sweep.scores["score"][0]]
    hemaml.resume(sweep.id, overrides=["sweep.confirm_seeds=0"])
    with pytest.raises(ConfigError, match="a run that kept its model, but stub-"):
        hemaml.transfer(sweep.run_id, {"reader": "x"})


@pytest.mark.slow
def test_a_registered_segmenter_on_a_folder_of_another_laboratory(workplace):
    """Its scores are those of scoring it by hand; version, run and logged model tell of them."""
    from PIL import Image

    plan = hemaml.load_experiment(SMEARS, [*TINY, "register=cells"])
    run = hemaml.run(plan)
    target = hemaml.read_dataset(OTHERS)
    grey = np.array([0, 128, 255], dtype=np.uint8)
    for part in ("images", "masks"):
        (workplace / "slides" / part).mkdir(parents=True)
    for name, image, mask in zip(target.ids, target.images, target.masks, strict=True):
        Image.fromarray(image).save(workplace / "slides" / "images" / f"{name}.png")
        Image.fromarray(grey[mask]).save(workplace / "slides" / "masks" / f"{name}.png")
    levels = "levels={background: 0, cytoplasm: 128, nucleus: 255}"
    folder = ["image_mask_pairs", "--set", f"root={workplace}/slides", "--set", levels]
    code, shown = call("models:/cells@candidate", *folder)
    assert code == 0 and "models:/cells/1: one model of smears on 6 images of slides" in shown
    assert "on smears, validation" in shown
    mlflow = tracker("wbc_segmentation")
    (record,) = mlflow.find({"kind": "transfer"})
    weights = mlflow.model_weights("models:/cells/1")
    objective = plan.objective
    by_hand = objective.task.score(objective.model.load(weights), target)
    assert record.metrics["target/dice"] == pytest.approx(by_hand["dice"])
    assert record.metrics["source/dice"] == run.metrics["dice"]
    low, high = (record.metrics[f"target_ci/dice_{end}"] for end in ("low", "high"))
    assert low <= by_hand["dice"] <= high
    rows = list(csv.DictReader(io.StringIO(mlflow.read_text(record.id, "images.csv"))))
    assert [row["image"] for row in rows] == list(target.ids)
    mean = np.mean([float(row["dice/nucleus"]) for row in rows])
    assert mean == pytest.approx(by_hand["dice/nucleus"], abs=1e-5)
    assert mlflow.has_artifact(record.id, "pictures/overlay.png")
    (version,) = hemaml.models("cells")
    assert version.tags["transfer.slides"] == mlflow.get(run.run_id).tags["transfer.slides"]
    with pytest.raises(ConfigError, match="was chosen by, 1[0-9] of the 16 of smears"):
        call("models:/cells/1", "smears", "--set", "count=16", "--set", "size=48")
    assert hemaml.transfer("models:/cells/1", OTHERS).target == "smears"
