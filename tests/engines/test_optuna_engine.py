"""What only the native engine does: trials in the process of the search itself."""

import multiprocessing as mp
import os
import signal
from functools import partial

import pytest

from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines import optuna_engine
from hemaml.engines.optuna_engine import searched

SPACE = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
SWEEP = Sweep(trials=3, sampler="random")


@pytest.fixture
def study(tmp_path):
    return Study("s", str(tmp_path / "study.journal"), ("maximize",))


def nobody(event):
    """Watches nothing."""


def value(assigned, report):
    return Outcome("finished", (assigned.point["x"],))


def deadly(advances, assigned, report):
    """Trial 1 kills its process; where it advances, one step later each time."""
    if assigned.number == 1:
        for step in range(advances.stat().st_size + 1 if advances else 0):
            report(step, 1.0)
        if advances:
            advances.write_bytes(bytes(step + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return value(assigned, report)


def search_in_a_process(evaluate, study):
    context = mp.get_context("forkserver")
    process = context.Process(
        target=optuna_engine.search, args=(evaluate, SPACE, SWEEP, study, nobody)
    )
    process.start()
    process.join()
    return process.exitcode


def test_a_trial_that_kills_its_process_again_where_it_did_before_fails(study):
    ends = [search_in_a_process(partial(deadly, None), study) for _ in range(4)]
    assert ends == [-signal.SIGKILL] * 3 + [0]
    trials = searched(study)
    assert [trial.ending for trial in trials] == ["finished", "failed", "finished"]
    assert "its process died 3 times" in trials[1].reason


def test_a_trial_that_comes_further_each_time_goes_on_however_often_it_is_killed(study, tmp_path):
    advances = tmp_path / "advances"
    advances.touch()
    for _ in range(4):
        assert search_in_a_process(partial(deadly, advances), study) == -signal.SIGKILL
    optuna_engine.search(value, SPACE, SWEEP, study, nobody)
    assert [trial.ending for trial in searched(study)] == ["finished"] * 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_trial_goes_on_however_often_its_process_ends_in_order(study, error):
    def interrupted(assigned, report):
        raise error

    for _ in range(4):
        with pytest.raises(error):
            optuna_engine.search(interrupted, SPACE, SWEEP, study, nobody)
    optuna_engine.search(value, SPACE, SWEEP, study, nobody)
    assert [trial.ending for trial in searched(study)] == ["finished"] * 3
