"""What a task's page in the MLflow UI tells, and which pages are named."""

import json
import threading
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from mlflow import MlflowClient

import hemaml
from hemaml import overview
from hemaml.core import settings
from hemaml.core.experiment import plan_from
from hemaml.core.markdown import SPACE
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.views import model_page


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def told():
    """The stored description, as it reads."""
    found = MlflowClient(settings.tracking_uri()).get_experiment_by_name("stub")
    return found.tags["mlflow.note.content"].replace(SPACE, "")


def test_a_task_tells_its_questions_answers_and_champion(stub):
    result = hemaml.sweep(plan_from(stub.EXPERIMENT, stub.SPACE))
    mean, deviation = result.confirmed["score"]
    found = f"score {mean:.4f} ± {deviation:.4f} on validation"
    winner = f"x = {result.best['x']:.4g}"
    page = tracker().get(result.run_id).tags["view"]
    row = f"| Does it work? | {found} | 0.5 | {winner} | [{result.id}]({page}) |"
    assert told().startswith(f"No champion yet; {found}.") and row in told()
    scores = hemaml.evaluate(plan_from(stub.EXPERIMENT, None), splits=2).scores["score"]
    assert f"score {scores[0]:.4f} ± {scores[1]:.4f} on 2 test parts" in told() and row in told()
    run = hemaml.run(plan_from({**stub.EXPERIMENT, "params": {"x": 0.7}}, None))
    hemaml.promote("stub-stub", run=run.run_id)
    line = f"Champion stub, score 0.7000 held out: [stub-stub v1]({model_page('stub-stub', 1)})"
    assert told().startswith(line) and row in told()
    hemaml.promote("stub-stub", sweep=result.id, force="to look at it")
    hemaml.rollback("stub-stub", reason="seen")
    assert told().startswith(line)


def test_a_sweep_that_fails_does_not_stay_running(stub, monkeypatch):
    def fault(step):
        assert "| running |" in told()
        raise KeyboardInterrupt

    monkeypatch.setattr(stub, "on_step", [fault])
    with pytest.raises(KeyboardInterrupt):
        hemaml.sweep(plan_from(stub.EXPERIMENT, stub.SPACE))
    assert "| interrupted |" in told() and "running" not in told()


def record(number, question="Why?"):
    """A sweep's run, without the sweep."""
    goals = json.dumps([{"metric": "score", "direction": "maximize"}])
    tags = {"kind": "sweep", "question": question, "goals": goals, "experiment": "stub",
            "view": "#/x", "outcome": "finished"}  # fmt: skip
    tracker().start(f"sweep-{number}", tags).end("FINISHED")


def test_the_last_to_write_has_seen_what_others_recorded(stub, monkeypatch):
    """A process that is slow to write must not take away what a faster one has told."""
    record(0)
    describe, slow = overview.description, threading.Event()

    def describe_late(of):
        text = describe(of)
        if not slow.is_set():  # the first to look is the last to write
            slow.set()
            record(1)
            overview.refresh(of)
        return text

    monkeypatch.setattr(overview, "description", describe_late)
    overview.refresh(tracker())
    assert "sweep-0" in told() and "sweep-1" in told()


def test_a_description_is_never_longer_than_a_tag(stub):
    for number in range(overview.MOST_ROWS + 2):
        record(number, question="Why? " * (400 if number % 2 else 1))
    overview.refresh(tracker())
    newest = overview.MOST_ROWS + 1
    assert len(told()) <= overview.MOST_CHARS and f"sweep-{newest}" in told()
    shown = told().count("[sweep-")
    assert told().endswith(f"And {overview.MOST_ROWS + 2 - shown} earlier ones.")


def test_pages_of_sweeps_and_models_are_named(stub):
    assert overview.links() == []
    result = hemaml.sweep(plan_from({**stub.EXPERIMENT, "register": "mine"}, stub.SPACE))
    links = {place.name: place.pages for place in overview.links()}
    assert list(links) == ["task stub", f"sweep {result.id} (finished)", "registered model mine"]
    pages = links[f"sweep {result.id} (finished)"]
    assert result.link.endswith(pages["trials"])
    asked = parse_qs(urlsplit(pages["best side by side"].removeprefix("#")).query)
    best = result.trials().sort_values("score", ascending=False)["run_id"][:3]
    assert json.loads(asked["runs"][0]) == list(best)
    assert json.loads(asked["experiments"][0]) == [tracker().experiment_id]
    assert links["registered model mine"] == {"versions": model_page("mine")}
    hemaml.promote("mine")
    (pages,) = [place.pages for place in overview.links() if place.name.endswith("mine")]
    assert pages["champion (v1)"] == model_page("mine", 1)


def test_models_data_sets_and_sources_are_linked(stub):
    run = hemaml.run(plan_from({**stub.EXPERIMENT, "register": "mine"}, None)).run_id
    client = MlflowClient(settings.tracking_uri(), settings.tracking_uri())
    (model,) = client.search_logged_models([tracker().experiment_id])
    assert model.name == "stub" and model.source_run_id == run
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "mine", "version": "1"}]
    record = tracker().get(run)
    assert model.tags["mlflow.source.name"] == record.tags["mlflow.source.name"]
    assert record.tags["mlflow.source.name"] == "experiments/stub/stub.yaml"
    scores = {metric.key: metric for metric in model.metrics}
    assert scores["score"].value == record.metrics["score"]
    inputs = client.get_run(run).inputs.dataset_inputs
    data = {entry.dataset.digest for entry in inputs if entry.tags[0].value == "validation"}
    assert {scores["score"].dataset_digest} == data


def test_names_are_encoded():
    page = model_page("ü b&c?d#e", 2)
    assert page.startswith("#/models/") and page.endswith(
        "/versions/2?workflowType=machine_learning"
    )
    name = page.removeprefix("#/models/").partition("/versions")[0]
    assert unquote(name) == "ü b&c?d#e" and not set(name) & set(" &?#/")
