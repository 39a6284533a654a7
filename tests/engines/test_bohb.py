"""BOHB's sampler: where it draws, what it learns from, and what is said without its package."""

import builtins
import os

import numpy as np
import pytest

import hemaml
from hemaml.core import settings
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import plan_from
from hemaml.core.search import Outcome, Stopped, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines.optuna_engine import search, searched
from hemaml.tracking.mlflow_tracker import MlflowTracker

if not os.environ.get("CI"):
    pytest.importorskip("hpbandster", reason="needs BOHB's package: `make bohb`")

SPACE = Space.model_validate(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1, "log": True},
        "width": {"type": "int", "low": 8, "high": 32, "step": 8},
        "share": {"type": "float", "low": 0, "high": 1, "step": 0.25},
        "conv": {"type": "categorical", "choices": ["gin", None, True]},
        "heads": {"type": "int", "low": 1, "high": 4, "when": {"conv": "gin"}},
    }
)


def quality(point):
    """Best at lr = .01, conv = None."""
    return -abs(np.log10(point["lr"]) + 2) - (point["conv"] is not None)


def study(tmp_path, name="s"):
    return Study(name, str(tmp_path / "study.journal"), ("maximize",), seed=3)


def run(tmp_path, evaluate, *, name="s", **settings):
    sweep = Sweep(**{"trials": 40, "sampler": "bohb", **settings})
    search(evaluate, SPACE, sweep, study(tmp_path, name), lambda event: None)
    return searched(study(tmp_path, name))


def in_steps(assigned, report):
    try:
        for step in range(9):
            report(step, quality(assigned.point) - 1 / (step + 1))
    except Stopped:
        return Outcome("pruned")
    return Outcome("finished", (quality(assigned.point) - 1 / 9,))


def median_error(trials):
    return np.median([-quality(trial.point) for trial in trials])


def test_it_draws_where_the_better_points_are(tmp_path):
    """Two thirds by the model: clearly nearer than uniform draws, whose median is 1.7."""
    trials = run(tmp_path, in_steps, trials=60, pruner="hyperband")
    drawn_at_random = run(tmp_path, in_steps, name="r", trials=60, sampler="random")
    assert median_error(trials[30:]) < 0.6 * median_error(drawn_at_random)
    assert {t.ending for t in trials} == {"finished", "pruned"}


def test_points_are_of_the_space(tmp_path):
    for trial in run(tmp_path, in_steps, trials=30):
        assert SPACE.coerce(trial.point) == trial.point
        assert ("heads" in trial.point) == (trial.point["conv"] == "gin")


def test_what_failed_is_avoided(tmp_path):
    def fails_fast(assigned, report):
        if assigned.point["lr"] > 1e-2:
            return Outcome("diverged", reason="nan")
        report(0, 0.5)
        return Outcome("finished", (0.5,))

    late = run(tmp_path, fails_fast, trials=60)[20:]
    assert np.mean([trial.ending == "diverged" for trial in late]) < 0.35  # at random: .5


def test_it_learns_from_the_study_after_a_resume(tmp_path):
    run(tmp_path, in_steps, trials=40)
    more = run(tmp_path, in_steps, trials=60)
    assert median_error(more[40:]) < 1.0


def test_numpy_keeps_its_own_random_numbers(tmp_path):
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    run(tmp_path, in_steps, trials=20)
    assert np.random.rand() == expected


def test_a_model_that_fails_is_no_silent_random_search(tmp_path, monkeypatch):
    import ConfigSpace

    def breaks(*args, **kwargs):
        raise ValueError("broken")

    monkeypatch.setattr(ConfigSpace.util, "deactivate_inactive_hyperparameters", breaks)
    with pytest.raises(RuntimeError, match="Sampling based optimization|Error"):
        run(tmp_path, in_steps, trials=40)


def test_one_goal_only():
    goals = [{"metric": m, "direction": "maximize"} for m in "ab"]
    with pytest.raises(ValueError, match="`sampler: bohb` takes one goal"):
        Sweep(sampler="bohb", goals=goals)


def test_without_its_package_the_error_says_how_to_get_it_and_nothing_is_recorded(
    stub, monkeypatch
):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "hemaml.engines.bohb":
            raise ImportError("No module named 'hpbandster'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    document = {**stub.EXPERIMENT, "sweep": {"sampler": "bohb"}}
    with pytest.raises(ConfigError, match=r"pip install 'hemaml\[bohb\]'"):
        hemaml.sweep(plan_from(document, stub.SPACE))
    assert not MlflowTracker(settings.tracking_uri(), "stub").find({})
