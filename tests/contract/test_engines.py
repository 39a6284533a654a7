"""Every engine keeps the same contract; engines are found by walking `hemaml/engines`."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import optuna
import pytest
import ray

import hemaml.engines
from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.core.search import Outcome, Stopped, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines.optuna_engine import searched
from hemaml.engines.optuna_study import open_storage

ENGINES = sorted(p.stem for p in Path(hemaml.engines.__path__[0]).glob("*_engine.py"))
SPACE = Space.model_validate(
    {
        "x": {"type": "float", "low": -1, "high": 1},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "depth": {"type": "int", "low": 1, "high": 3, "when": {"kind": "b"}},
    }
)


@pytest.fixture(params=ENGINES)
def search(request):
    if request.param == "ray_engine":
        request.getfixturevalue("local_ray")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import it
    return importlib.import_module(f"hemaml.engines.{request.param}").search


@pytest.fixture
def study(tmp_path):
    return Study("s", str(tmp_path / "study.journal"), ("maximize",), seed=3)


def parabola(assigned, report):
    """Best at x = 0.3 with kind b; reports three steps."""
    value = -((assigned.point["x"] - 0.3) ** 2) + (assigned.point["kind"] == "b")
    for step in range(3):
        report(step, value * (step + 1) / 3)
    return Outcome("finished", (value,), run_id=f"run-{assigned.number}", key="k")


def run(search, evaluate, study, **settings):
    events = []
    sweep = Sweep(**{"trials": 8, "sampler": "random", **settings})
    search(evaluate, SPACE, sweep, study, events.append)
    return events


@pytest.mark.parametrize("workers", [1, 2])
def test_makes_as_many_trials_as_asked_and_records_each(search, study, workers):
    events = run(search, parabola, study, workers=workers)
    trials = searched(study)
    assert [trial.number for trial in trials] == list(range(8))
    assert {trial.ending for trial in trials} == {"finished"}
    assert {trial.run_id for trial in trials} == {f"run-{i}" for i in range(8)}
    best = [trial for trial in trials if trial.best]
    assert [t.values for t in best] == [max(trial.values for trial in trials)]
    assert sum(event.kind == "started" for event in events) == 8
    assert sum(event.kind == "ended" for event in events) == 8
    assert sum(event.kind == "reported" for event in events) == 24


def test_conditional_parameters_appear_only_where_they_hold(search, study):
    run(search, parabola, study, trials=20)
    for trial in searched(study):
        assert ("depth" in trial.point) == (trial.point["kind"] == "b")


def test_same_seed_same_points(search, tmp_path):
    points = []
    for name in ("first", "second"):
        study = Study(name, str(tmp_path / f"{name}.journal"), ("maximize",), seed=7)
        run(search, parabola, study)
        points.append([trial.point for trial in searched(study)])
    assert points[0] == points[1]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "grid", "nsga2"])
def test_samplers_search_mixed_spaces(search, study, sampler):
    if sampler == "grid":
        with pytest.raises(ConfigError, match="needs `step` on float 'x'"):
            run(search, parabola, study, sampler=sampler)
        return
    run(search, parabola, study, sampler=sampler, trials=15)
    assert len(searched(study)) == 15


def test_cmaes_searches_numbers(search, study):
    space = Space.model_validate(
        {name: {"type": "float", "low": -1, "high": 1} for name in ("x", "y")}
    )

    def bowl(assigned, report):
        return Outcome("finished", (-(assigned.point["x"] ** 2) - assigned.point["y"] ** 2,))

    search(bowl, space, Sweep(trials=60, sampler="cmaes"), study, lambda event: None)
    assert max(trial.values[0] for trial in searched(study)) > -0.05


def test_grid_visits_each_distinct_point_once_and_then_ends(search, study):
    space = Space.model_validate(
        {
            "kind": {"type": "categorical", "choices": ["a", "b"]},
            "depth": {"type": "int", "low": 1, "high": 3, "when": {"kind": "b"}},
        }
    )

    def constant(assigned, report):
        return Outcome("finished", (1.0,))

    search(constant, space, Sweep(trials=100, sampler="grid"), study, lambda event: None)
    points = [trial.point for trial in searched(study)]
    expected = [{"kind": "a"}, *({"kind": "b", "depth": depth} for depth in (1, 2, 3))]
    assert sorted(map(repr, points)) == sorted(map(repr, expected))


@pytest.mark.parametrize("pruner", ["hyperband", "asha", "median"])
def test_pruners_stop_bad_trials_early(search, study, pruner):
    def trial(assigned, report):
        good = assigned.number % 4 != 3
        for step in range(27):
            try:
                report(step, float(good))
            except Stopped:
                return Outcome("pruned", reason="stopped")
        return Outcome("finished", (float(good),))

    run(search, trial, study, pruner=pruner, trials=40)
    endings = {t.ending for t in searched(study)}
    assert endings == {"finished", "pruned"}
    good = [t for t in searched(study) if t.ending == "finished" and t.number % 4 != 3]
    pruned = {t.number for t in searched(study) if t.ending == "pruned"}
    if pruner == "median":  # the others thin out good trials as well, by design
        assert all(number % 4 == 3 for number in pruned)
    assert good
    assert any(t.best and t.values == (1.0,) for t in searched(study))


def test_several_goals_give_a_front_without_infeasible_points(search, tmp_path):
    study = Study("two", str(tmp_path / "s.journal"), ("maximize", "minimize"))

    def trial(assigned, report):
        x = assigned.point["x"]
        if x > 0.5:
            return Outcome("over_budget", reason="too many parameters", excess=10)
        report(0, x)
        return Outcome("finished", (x, x + 1), excess=-10)

    run(search, trial, study, trials=20)
    trials = searched(study)
    rejected = [t for t in trials if t.point["x"] > 0.5]
    assert rejected and all(t.ending == "over_budget" and not t.best for t in rejected)
    assert all(t.best for t in trials if t.ending == "finished")  # each trades one for the other


@pytest.mark.parametrize("workers", [1, 2])
def test_endings_without_a_value_are_recorded_with_their_reason(search, study, workers):
    endings = ["diverged", "out_of_memory", "failed", "over_budget"]
    told = [Outcome(ending, reason=f"it {ending}", run_id="r", excess=5) for ending in endings]
    run(search, partial(by_number, told), study, trials=len(told), workers=workers)
    found = [(t.ending, t.reason, t.best) for t in searched(study)]
    assert found == [(outcome.ending, outcome.reason, False) for outcome in told]


def by_number(outcomes, assigned, report):
    return outcomes[assigned.number]


def always(outcome, assigned, report):
    return outcome


def test_patience_ends_a_search_that_no_longer_improves(search, study):
    run(search, partial(always, Outcome("finished", (1.0,))), study, trials=50, patience=4)
    assert len(searched(study)) == 5


def test_no_trial_starts_after_the_hours(search, study):
    def slow(assigned, report):
        time.sleep(0.05)
        return Outcome("finished", (1.0,))

    run(search, slow, study, trials=500, hours=0.3 / 3600)
    assert 1 <= len(searched(study)) <= 8


def test_first_points_come_first(search, study):
    run(search, parabola, study, first=({"x": 0.3, "kind": "a"},))
    assert searched(study)[0].point == {"x": 0.3, "kind": "a"}


def test_whole_numbers_given_for_floats_stay_the_same_point_after_a_restart(search, study):
    seen = []

    def interrupted(event):
        seen.append(repr(event.point))
        raise KeyboardInterrupt

    sweep = Sweep(sampler="random", first=({"x": 1, "kind": "a"},))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(parabola, SPACE, sweep, study, interrupted)
    assert seen == [repr({"x": 1.0, "kind": "a"})] * 2


def test_a_longer_sweep_continues_the_study_with_new_points(search, study):
    run(search, parabola, study, trials=5)
    run(search, parabola, study, trials=9)
    xs = [trial.point["x"] for trial in searched(study)]
    assert len(xs) == len(set(xs)) == 9


def test_warm_start_learns_but_does_not_count(search, tmp_path):
    storage = str(tmp_path / "s.journal")
    run(search, parabola, Study("old", storage, ("maximize",)), trials=6)
    new = Study("new", storage, ("maximize",), warm_start=("old",))
    run(search, parabola, new, trials=4)
    assert len(searched(new)) == 4
    best = [trial for trial in searched(new) if trial.best]
    assert [t.values for t in best] == [max(t.values for t in searched(new))]
    lent = optuna.load_study(
        study_name="new",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage)),
    )
    assert len(lent.trials) == 10


def test_a_study_that_was_killed_while_it_was_set_up_is_completed(search, study, monkeypatch):
    space = Space.model_validate({"n": {"type": "int", "low": 1, "high": 5}})
    enqueue, calls = optuna.Study.enqueue_trial, []

    def dies(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return enqueue(self, *arguments, **options)

    sweep = Sweep(trials=9, sampler="grid")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "enqueue_trial", dies)
        search(partial(always, Outcome("finished", (1.0,))), space, sweep, study, print)
    search(partial(always, Outcome("finished", (1.0,))), space, sweep, study, lambda event: None)
    assert sorted(trial.point["n"] for trial in searched(study)) == [1, 2, 3, 4, 5]


def test_warm_start_from_nothing_is_an_error(search, tmp_path):
    study = Study("new", str(tmp_path / "s.journal"), ("maximize",), warm_start=("gone",))
    with pytest.raises(ConfigError, match="'gone' does not exist"):
        run(search, parabola, study)


def suicidal(marker, assigned, report):
    """Kills its worker the first time it meets trial 2."""
    if assigned.number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return parabola(assigned, report)


def test_a_worker_that_dies_is_replaced_and_its_trial_continued(search, study, tmp_path):
    events = run(search, partial(suicidal, tmp_path / "died"), study, workers=2)
    assert [event.number for event in events if event.kind == "lost"] == [2]
    assert [t.ending for t in searched(study)] == ["finished"] * 8


def always_suicidal(assigned, report):
    if assigned.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return parabola(assigned, report)


def test_a_trial_that_kills_every_worker_fails_and_the_rest_goes_on(search, study):
    run(search, always_suicidal, study, workers=2)
    trials = searched(study)
    assert [t.ending for t in trials].count("finished") == 7
    assert trials[1].ending == "failed" and "its worker died 2 times" in trials[1].reason


def faulty(assigned, report):
    if assigned.number == 1:
        raise ValueError("a number that no trial knows")
    return parabola(assigned, report)


def test_an_error_that_is_nobodys_fails_its_trial_and_is_told(search, study):
    run(search, faulty, study, workers=2, trials=2)
    trials = searched(study)
    assert [t.ending for t in trials] == ["finished", "failed"]
    assert "last with ValueError: a number that no trial knows" in trials[1].reason


def told_of_data(assigned, report):
    return Outcome("finished", (1.0,), run_id=os.environ["HEMAML_DATA"])


def test_workers_have_the_environment_of_their_own_search(search, tmp_path, monkeypatch):
    """The fork server has that of the process's first search, a caller's Ray that of its start."""
    for folder in ("a", "b"):
        monkeypatch.setenv("HEMAML_DATA", folder)
        study = Study(folder, str(tmp_path / "s.journal"), ("maximize",))
        run(search, told_of_data, study, workers=2, trials=1)
        assert {trial.run_id for trial in searched(study)} == {folder}


def test_a_death_while_the_system_kills_for_memory_is_out_of_memory(
    search, study, tmp_path, monkeypatch
):
    counter = tmp_path / "vmstat"
    counter.write_text("nr_free_pages 5\noom_kill 3\n")
    monkeypatch.setattr("hemaml.engines.workers.VMSTAT", counter)
    run(search, partial(killed_for_memory, counter), study, workers=2)
    endings = [trial.ending for trial in searched(study)]
    assert endings.count("out_of_memory") == 1 and endings.count("finished") == 7
    assert "lack of memory" in searched(study)[1].reason


def killed_for_memory(counter, assigned, report):
    if assigned.number == 1:
        kills = int(counter.read_text().split()[-1])
        counter.write_text(f"nr_free_pages 5\noom_kill {kills + 1}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return parabola(assigned, report)


def logged(folder, assigned, report):
    """Takes a while, and notes when it was at which point."""
    begun = time.monotonic()
    time.sleep(0.3)
    note = [assigned.point["n"], begun, time.monotonic()]
    (folder / str(assigned.number)).write_text(json.dumps(note))
    return Outcome("finished", (1.0,))


def test_no_two_workers_are_at_the_same_point_at_once(search, study, tmp_path):
    """The second would train the same network; once the first has ended it takes its result."""
    space = Space.model_validate({"n": {"type": "int", "low": 1, "high": 2}})
    folder = tmp_path / "notes"
    folder.mkdir()
    sweep = Sweep(trials=9, sampler="random", workers=3)
    search(partial(logged, folder), space, sweep, study, lambda event: None)
    assert len(searched(study)) == 9
    notes = sorted(json.loads(path.read_text()) for path in folder.iterdir())
    assert len(notes) == 9
    for (n, _, end), (other, start, _) in pairwise(notes):
        assert n != other or start >= end


def test_a_search_that_goes_on_tells_what_had_ended(search, study):
    run(search, parabola, study, trials=3)
    events = run(search, parabola, study, trials=5)
    earlier = [event for event in events if event.kind == "earlier"]
    assert [event.number for event in earlier] == [0, 1, 2]
    assert all(e.outcome.ending == "finished" and e.outcome.values for e in earlier)
    assert [e.number for e in events if e.kind == "ended"] == [3, 4]


def storeless(assigned, report):
    if assigned.number >= 3:
        raise StoreError("the store is gone")
    return parabola(assigned, report)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_lost_store_ends_the_search_and_a_later_one_goes_on(search, study, workers):
    with pytest.raises(StoreError, match="the store is gone"):
        run(search, storeless, study, workers=workers)
    run(search, parabola, study, workers=workers)
    assert [t.ending for t in searched(study)] == ["finished"] * 8


def unknown(assigned, report):
    raise UnknownName("metric", "dise", ["dice"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_error_keeps_its_words_on_the_way_out_of_a_worker(search, study, workers):
    with pytest.raises(ConfigError, match="unknown metric 'dise'; known: dice"):
        run(search, unknown, study, workers=workers)


KILLED = """
import importlib, signal, sys, time
from hemaml.core.sweep import Sweep
from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space

def slow(assigned, report):
    time.sleep(.3)
    return Outcome("finished", (1.0,), run_id=str(assigned.number))

if __name__ == "__main__":
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    study = Study("k", sys.argv[1], ("maximize",))
    search = importlib.import_module(sys.argv[2]).search
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
    try:
        search(slow, space, Sweep(trials=10, workers=2), study, lambda event: None)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "how"),
    # Ray's workers are no children of the parent, and Ray wants signals for itself.
    [
        *((engine, signal.SIGKILL) for engine in ENGINES),
        ("ray_engine", signal.SIGINT),
        ("ray_engine", signal.SIGTERM),
    ],
    indirect=["search"],
)
def test_an_end_of_the_parent_takes_its_workers_along_and_loses_nothing(search, tmp_path, how):
    script, journal = tmp_path / "killed.py", str(tmp_path / "k.journal")
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), journal, search.__module__], stderr=subprocess.DEVNULL
    )
    study = Study("k", journal, ("maximize",))
    deadline = time.monotonic() + 60
    while _count(study, "finished") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    assert process.wait(timeout=60) == (-how if how == signal.SIGKILL else 130)
    time.sleep(0.3)
    before = [trial for trial in searched(study) if trial.ending == "finished"]
    time.sleep(1)
    assert [t for t in searched(study) if t.ending == "finished"] == before
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    one = partial(always, Outcome("finished", (1.0,)))
    search(one, space, Sweep(trials=10, workers=2), study, lambda event: None)
    after = searched(study)
    assert [trial.ending for trial in after] == ["finished"] * 10
    assert [after[trial.number] for trial in before] == before


def test_a_trial_killed_while_its_outcome_is_told_has_not_ended(study):
    storage = open_storage(study.storage)
    trial = optuna.create_study(storage=storage, study_name=study.name).ask()
    trial.suggest_float("x", -1, 1)
    trial.set_user_attr("ending", "finished")
    assert [t.ending for t in searched(study)] == ["running"]


def _count(study, ending):
    try:
        return sum(trial.ending == ending for trial in searched(study))
    except (KeyError, FileNotFoundError):
        return 0
