"""What a study begins with, and what it goes on with; through the native engine."""

import gc

import psutil
import pytest

from hemaml.core.errors import ConfigError
from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines import optuna_engine
from hemaml.engines.optuna_engine import searched

FIVE = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1, "step": 0.25}})
LINE = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
SEEDS = Space.model_validate({"seed": {"type": "int", "low": 1000000, "high": 1000004}})


@pytest.fixture
def study(tmp_path):
    return Study("s", str(tmp_path / "study.journal"), ("maximize",), seed=3)


def run(space, study, **settings):
    def value(assigned, report):
        return Outcome("finished", (float(sum(assigned.point.values())),))

    sweep = Sweep(**{"trials": 9, "sampler": "random", **settings})
    optuna_engine.search(value, space, sweep, study, lambda event: None)
    return [trial.point for trial in searched(study)]


def test_a_study_goes_on_with_a_grid_that_it_was_not_made_with(study):
    (first,) = run(FIVE, study, trials=1)
    points = run(FIVE, study, sampler="grid")
    assert points[0] == first
    assert sorted(point["x"] for point in points) == [0, 0.25, 0.5, 0.75, 1]
    assert run(FIVE, study, sampler="grid", trials=20) == points


def test_a_grid_that_a_space_does_not_have_is_refused_of_a_study_that_is_there(study):
    run(LINE, study, trials=1)
    with pytest.raises(ConfigError, match="needs `step` on float 'x'"):
        run(LINE, study, sampler="grid")


def test_first_points_that_are_named_later_come_next_and_once(study):
    first = ({"x": 0.3},)
    run(LINE, study, trials=2)
    assert run(LINE, study, trials=3, first=first)[2] == {"x": 0.3}
    points = run(LINE, study, trials=6, first=(*first, {"x": 0.4}))
    assert points[3] == {"x": 0.4} and points.count({"x": 0.3}) == 1


def test_first_points_are_tried_though_a_lent_trial_has_had_them(study, tmp_path):
    first = ({"x": 0.3},)
    run(LINE, study, first=first)
    new = Study("new", study.storage, study.directions, warm_start=(study.name,))
    assert run(LINE, new, trials=3, first=first, sampler="tpe")[0] == {"x": 0.3}


def test_a_grid_has_all_of_several_large_numbers(study):
    points = run(SEEDS, study, sampler="grid")
    assert sorted(point["seed"] for point in points) == list(range(1000000, 1000005))


def test_a_search_leaves_no_connection_open(tmp_path):
    file = tmp_path / "studies.db"
    gc.disable()  # which would close some, sooner or later
    try:
        run(LINE, Study("s", f"sqlite:///{file}", ("maximize",)))
        assert str(file) not in {opened.path for opened in psutil.Process().open_files()}
    finally:
        gc.enable()
