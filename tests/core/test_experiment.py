"""Experiment files: read strictly, overridden by `--set`, checked before anything runs."""

from copy import deepcopy

import pytest

from hemaml.core.documents import override
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import load_experiment, plan_from, plan_of


@pytest.fixture
def document(stub):
    return deepcopy(stub.EXPERIMENT)


def test_a_plan_reads_back_equal(stub, document):
    plan = plan_from(document, stub.SPACE)
    again = plan_from(plan.experiment.document(), plan.space.model_dump(mode="json"))
    assert again == plan


def test_overrides_beside_a_plan_are_refused_rather_than_forgotten(stub, document):
    plan = plan_from(document, stub.SPACE)
    assert plan_of(plan) is plan
    with pytest.raises(ConfigError, match="was given as a plan, with .'params.epochs=9'"):
        plan_of(plan, ["params.epochs=9"])


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("sweeps", 1, "experiment.sweeps: unknown key 'sweeps'; known: sweep"),
        ("sweep.trails", 1, "experiment.sweep.trails: unknown key 'trails'; known: trials"),
        ("sweep.trials", 0, r"experiment.sweep.trials: .*greater than or equal to 1 \(got 0\)"),
        ("sweep.sampler", "tep", "experiment.sweep.sampler: .*'tpe'"),
        ("params.x", 0.5, "'x' is both"),
        ("params.xx", 0.5, "unknown parameter of stub.stub 'xx'; known: x"),
        ("params.epochs", -1, "params.epochs: .*greater than or equal to 0"),
        ("objective", "stub.stubb", "unknown objective 'stub.stubb'; known: stub.stub"),
        ("sweep.max_params", 5, "the smallest of its corners has 40 parameters"),
        ("sweep.sampler", "grid", "needs `step` on float 'x'"),
        ("sweep.first", [{"y": 1}], "unknown searched parameter 'y'; known: x"),
        ("sweep.first", [{"x": 7}], "'x' must lie between 0.0 and 1.0, but got 7"),
        ("sweep.first", [{"x": "many"}], "'x' must lie between 0.0 and 1.0, but got 'many'"),
    ],
)
def test_faults_are_found_before_a_trial_starts(stub, document, path, value, told):
    document = override(document, f"{path}=0")
    section = document
    *parents, last = path.split(".")
    for part in parents:
        section = section[part]
    section[last] = value
    with pytest.raises(ConfigError, match=told):
        plan_from(document, stub.SPACE)


def test_ranges_are_put_through_the_parameters(stub, document):
    with pytest.raises(ConfigError, match=r"params.x: .*less than or equal to 1 \(got 2.0\)"):
        plan_from(document, {"x": {"type": "float", "low": 0, "high": 2}})
    with pytest.raises(ConfigError, match="unknown parameter of stub.stub 'z'"):
        plan_from(document, {"z": {"type": "float", "low": 0, "high": 1}})


BY_X = {"name": "by_x", "title": "By x", "x": "x"}
TWO = {
    "x": {"type": "categorical", "choices": [0.5, 1]},
    "width": {"type": "int", "low": 1, "high": 2},
}


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ([{**BY_X, "by": ["z"]}], "unknown searched parameter 'z'; known: width, x"),
        ([{**BY_X, "over": ["z"]}], "unknown searched parameter 'z'; known: width, x"),
        ([BY_X], "leaves out 'width', whose values it would mix"),
        ([{**BY_X, "by": ["width"]}] * 2, r"`name` must differ, .*\['by_x', 'by_x'\]"),
        ([{**BY_X, "paper": [{"x": 1, "y": 2}]}], "`source` must say"),
        ([{**BY_X, "by": ["width"], "source": "a", "paper": [{"x": 7, "y": 2}]}],
         r"'x' must be one of \[0.5, 1\], but got 7"),
        ([{**BY_X, "by": ["width"], "y": "explain/silhouette"}],
         "`sweep.keep_models: true` must hold .* 'explain/silhouette'"),
        ([{**BY_X, "kind": "line"}], "figures.0.kind: unknown key"),
    ],
)  # fmt: skip
def test_faults_of_figures_are_found_before_a_trial_starts(stub, document, figures, told):
    with pytest.raises(ConfigError, match=told):
        plan_from(document | {"figures": figures}, TWO)


def test_what_is_to_be_registered_must_be_confirmed(stub, document):
    changed = {**document, "register": "cells", "sweep": {**document["sweep"], "confirm_seeds": 0}}
    with pytest.raises(ConfigError, match="`sweep.confirm_seeds >= 1` must hold.*got 0"):
        plan_from(changed, TWO)


def test_a_figure_need_not_name_the_seed(stub, document):
    space = {"x": TWO["x"], "seed": {"type": "int", "low": 0, "high": 4}}
    plan = plan_from(document | {"figures": [BY_X]}, space)
    assert plan.params({"x": 1, "seed": 3}) == plan.params({"x": 1, "seed": 4})


SEGMENTERS = {"type": "categorical", "choices": ["wbc_segmentation.smgnn", "wbc_segmentation.unet"]}
SMEARS = {"name": "a", "objective": "wbc_segmentation.smgnn", "question": "Which?",
          "data": {"reader": "smears"}, "params": {"epochs": 3}}  # fmt: skip


def test_a_space_may_search_over_objectives_each_with_its_own_parameters():
    width = {
        "type": "categorical",
        "choices": [0.125],
        "when": {"objective": SEGMENTERS["choices"][1]},
    }
    plan = plan_from(SMEARS, {"objective": SEGMENTERS, "width": width})
    for point, name in (
        ({}, "smgnn"),
        ({"objective": "wbc_segmentation.smgnn"}, "smgnn"),
        ({"objective": "wbc_segmentation.unet", "width": 0.125}, "unet"),
    ):
        at = plan.at(point)
        assert at.experiment.objective == f"wbc_segmentation.{name}"
        assert isinstance(plan.params(point), at.objective.params)
        assert plan.params(point).epochs == 3
        assert plan.size(point) == at.objective.size(plan.params(point))
    assert plan.objectives == tuple(SEGMENTERS["choices"])


@pytest.mark.parametrize(
    ("params", "space", "told"),
    [
        ({}, {"objective": {"type": "categorical", "choices": ["leukemia.svm"]}},
         "must be of one task, 'wbc_segmentation' here, but got 'leukemia.svm'"),
        ({}, {"objective": {"type": "categorical", "choices": ["wbc_segmentation.unett"]}},
         "unknown objective 'wbc_segmentation.unett'; known: wbc_segmentation.unet"),
        ({"scale": 9}, {"objective": SEGMENTERS},
         "unknown parameter of wbc_segmentation.unet 'scale'"),
        ({}, {"objective": SEGMENTERS, "width": {"type": "categorical", "choices": [0.125]}},
         "params.width: .*got 0.125"),
        ({}, {"objective": SEGMENTERS, "no": {"type": "int", "low": 0, "high": 1}},
         "unknown parameter of wbc_segmentation.smgnn or wbc_segmentation.unet 'no'"),
    ],
)  # fmt: skip
def test_each_objective_is_put_through_its_own_parameters(params, space, told):
    document = deepcopy(SMEARS)
    document["params"] |= params
    with pytest.raises(ConfigError, match=told):
        plan_from(document, space)


def test_several_goals_exclude_what_needs_one(stub, document):
    goals = [{"metric": m, "direction": "maximize"} for m in ("score", "params_total")]
    for extra in ({"pruner": "median"}, {"sampler": "cmaes"}, {"patience": 3}):
        document["sweep"] = {"goals": goals, **extra}
        with pytest.raises(ConfigError, match="goal"):
            plan_from(document, stub.SPACE)


def test_overrides_are_read_as_yaml(document):
    changed = override(document, "params.epochs=9")
    changed = override(changed, "sweep.first=[{x: 0.25}]")
    changed = override(changed, "new.deep.key=true")
    assert changed["params"]["epochs"] == 9
    assert changed["sweep"]["first"] == [{"x": 0.25}]
    assert changed["new"] == {"deep": {"key": True}}
    assert "new" not in document


@pytest.mark.parametrize("assignment", ["epochs", "=3", "objective.x=3", "a=[1"])
def test_overrides_that_make_no_sense_are_told(document, assignment):
    with pytest.raises(ConfigError, match="--set"):
        override(document, assignment)


def test_an_unknown_experiment_lists_the_known_ones(workplace):
    with pytest.raises(ConfigError, match=r"unknown experiment .*smgn\.yaml.*known: .*smgnn\.yaml"):
        load_experiment("experiments/wbc_segmentation/smgn.yaml")


def test_an_experiment_anywhere_can_be_run(tmp_path):
    path = tmp_path / "stub.yaml"
    path.write_text("objective: wbc_segmentation.smgnn\nquestion: Why?\ndata: {reader: smears}\n")
    plan = load_experiment(path)  # has no space, can be run
    assert plan.space is None
