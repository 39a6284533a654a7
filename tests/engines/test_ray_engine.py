"""What only the Ray engine does; what all engines do is in `contract/test_engines.py`."""

import sys
import time

import pytest
import ray

from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.experiment import Sweep
from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.engines import optuna_engine, ray_engine
from hemaml.engines.optuna_engine import searched

SPACE = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})


@pytest.fixture(autouse=True)
def _here(local_ray):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import it


@pytest.fixture
def study(tmp_path):
    return Study("s", str(tmp_path / "study.journal"), ("maximize",), seed=3)


def run(evaluate, study, **settings):
    events = []
    sweep = Sweep(**{"trials": 4, "sampler": "random", **settings})
    ray_engine.search(evaluate, SPACE, sweep, study, events.append)
    return events


def value(assigned, report):
    return Outcome("finished", (assigned.point["x"],))


def test_both_engines_evaluate_the_same_points(study, tmp_path):
    other = Study("s", str(tmp_path / "other.journal"), study.directions, seed=study.seed)
    run(value, study, trials=12)
    sweep = Sweep(trials=12, sampler="random")
    optuna_engine.search(value, SPACE, sweep, other, lambda event: None)
    assert [t.point for t in searched(study)] == [t.point for t in searched(other)]


class Unknown:
    """Cannot be read where it is sent."""

    def __reduce__(self):
        return __import__, ("a_package_that_this_worker_lacks",)

    def __call__(self, assigned, report):
        raise AssertionError


def test_a_worker_that_cannot_start_ends_the_search_and_says_why(study):
    with pytest.raises(StoreError, match="a_package_that_this_worker_lacks"):
        run(Unknown(), study)


def hangs(assigned, report):
    if assigned.number == 1:
        time.sleep(60)
    return value(assigned, report)


def test_a_trial_that_hangs_past_its_limit_fails_and_the_rest_goes_on(study):
    begun = time.monotonic()
    run(hangs, study, trial_hours=1 / 3600, workers=2)
    assert time.monotonic() - begun < 30
    trials = searched(study)
    assert [t.ending for t in trials].count("finished") == 3
    assert trials[1].ending == "failed" and "longer than `trial_hours" in trials[1].reason


def test_a_trial_that_asks_for_more_than_a_node_has_is_refused(study):
    with pytest.raises(ConfigError, match="asks for 64 processors"):
        run(value, study, resources={"cpu": 64})
