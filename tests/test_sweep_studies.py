"""Sweeps that search over objectives and seeds, keep all models, and end in figures."""

import sys
from copy import deepcopy
from types import SimpleNamespace

import pytest
from pydantic import Field

import hemaml
from hemaml import conclude, training
from hemaml.core import settings
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.experiment import plan_from
from hemaml.core.objective import Objective, Step
from hemaml.explain import Picture
from hemaml.record import recorded_point
from hemaml.registering import candidate
from hemaml.tracking.mlflow_tracker import MlflowTracker

OBJECTIVES = {"type": "categorical", "choices": ["stub.stub", "stub.other"]}


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """What every sweep draws is looked at elsewhere."""
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])


@pytest.fixture
def other(stub, monkeypatch):
    """A second objective of the stub's task, with a parameter of its own, that scores better."""

    class Params(stub.Params):
        depth: int = Field(default=1, ge=1, le=9)

    class OtherModel(stub.StubModel):
        pass

    def fit(params, fold, context):
        for step in stub.fit(params, fold, context):
            score = 2.0 + params.depth + context.seed % 1000 / 1e5
            yield Step(step.index, {**step.metrics, "score": score}, OtherModel(0.9), step.state)

    found = Objective(stub.task, Params, OtherModel, fit, size=lambda params: 7)
    monkeypatch.setitem(
        sys.modules, "hemaml.objectives.stub.other", SimpleNamespace(objective=found)
    )
    for module in (hemaml.core.objective, hemaml.record):
        monkeypatch.setattr(module, "objective_names", lambda: ["stub.stub", "stub.other"])
    return found


def plan(space, figures=(), **sweep):
    import stub

    document = deepcopy(stub.EXPERIMENT) | {"figures": list(figures)}
    document["sweep"] |= {"trials": 12, "sampler": "grid", "confirm_seeds": 0, **sweep}
    return plan_from(document, space)


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def trials_of(result):
    return tracker().find({"kind": "trial"}, parent=result.run_id)


def test_a_sweep_over_objectives_trains_each_and_its_winner_is_of_the_better(other):
    depth = {"type": "int", "low": 1, "high": 2, "when": {"objective": "stub.other"}}
    asked = plan({"objective": OBJECTIVES, "depth": depth}, confirm_seeds=1)
    result = hemaml.sweep(asked)
    runs = trials_of(result)
    assert sorted((run.tags["objective"], run.params.get("depth")) for run in runs) == [
        ("stub.other", "1"),
        ("stub.other", "2"),
        ("stub.stub", None),
    ]
    assert {run.metrics["params_total"] for run in runs} == {7, 40}
    assert result.best == {"objective": "stub.other", "depth": 2}
    parent = tracker().get(result.run_id)
    assert parent.tags["objective"] == "stub.other" and parent.metrics["score"] > 4
    point = recorded_point(asked, sweep_id=result.id)
    assert point["objective"] == "stub.other" and asked.params(point).depth == 2
    version = candidate("stub-stub", sweep=result.id)
    assert version.tags["objective"] == "stub.other", "its weights are loaded by that one"
    assert hemaml.promote("stub-stub", sweep=result.id).version.number == version.number
    split = hemaml.evaluate(asked, point=point, splits=1).splits[0]
    assert split["score"] == pytest.approx(0.9)
    assert hemaml.resume(result.id).best == result.best
    again = hemaml.sweep(
        plan({"objective": OBJECTIVES, "depth": depth}, sampler="tpe", trials=2), warm_start=True
    )
    assert again.best["objective"] == "stub.other"


def test_a_point_of_another_objective_is_refused(other):
    result = hemaml.sweep(plan({"objective": OBJECTIVES}))
    alone = plan({"x": {"type": "categorical", "choices": [0.5]}})
    with pytest.raises(ConfigError, match=r"one objective, stub\.stub here, .* 'stub\.other'"):
        recorded_point(alone, sweep_id=result.id)


def test_a_seed_trains_a_point_again_and_is_no_parameter(stub):
    result = hemaml.sweep(plan({"seed": {"type": "int", "low": 0, "high": 3}}))
    runs = trials_of(result)
    assert sorted(run.params["seed"] for run in runs) == ["0", "1", "2", "3"]
    assert len({run.metrics["score"] for run in runs}) == len(stub.trained) == 4
    assert len({run.tags["trial_key"] for run in runs}) == 4
    hemaml.sweep(plan({"seed": {"type": "int", "low": 0, "high": 3}}))
    assert len(stub.trained) == 4, "equal seeds are taken over"


def test_a_figure_of_an_unknown_number_is_told_at_the_first_trial(stub):
    figure = {"name": "a", "title": "A", "x": "x", "y": "scores"}
    space = {"x": {"type": "categorical", "choices": [0.1, 0.9]}}
    with pytest.raises(UnknownName, match=r"number of a figure 'scores'; known: score"):
        hemaml.sweep(plan(space, [figure]))
    assert len(stub.trained) == 1


@pytest.fixture
def measured(stub, monkeypatch):
    """Figures of models that cost nothing: how many were drawn, by x."""
    drawn = []
    numbers = lambda names, model, data, device: {"explain/x": model.x}  # noqa: E731
    monkeypatch.setattr(training, "measurements", numbers)

    def pictures(names, model, data):
        drawn.append(model.x)
        return [Picture("it", png=b"png")]

    monkeypatch.setattr(hemaml.record, "pictures", pictures)
    return drawn


def test_kept_models_have_pictures_and_what_is_measured_of_them_can_be_drawn(stub, measured):
    space = {"x": {"type": "categorical", "choices": [0.1, 0.5, 0.9]}}
    hemaml.sweep(plan(space))
    assert measured == [] and len(stub.trained) == 3
    figure = {"name": "m", "title": "Measured", "x": "x", "y": "explain/x"}
    result = hemaml.sweep(plan(space, [figure], keep_models=True))
    assert len(stub.trained) == 6, "a trial that kept no model cannot stand in for one that does"
    assert sorted(measured) == [0.1, 0.5, 0.9]
    for run in trials_of(result):
        assert run.status == "FINISHED"
        assert tracker().has_artifact(run.id, "weights/model.json")
        assert tracker().has_artifact(run.id, "pictures/it.png")
    assert "Measured" in tracker().read_text(result.run_id, "figures/m.html")
    hemaml.resume(result.id)
    assert len(measured) == 3, "drawn once"
    taken = hemaml.sweep(plan(space, [figure], keep_models=True))
    assert len(stub.trained) == 6
    assert [tracker().has_artifact(r.id, "pictures/it.png") for r in trials_of(taken)] == [True] * 3
