"""What only the Ray engine does; what all engines do is in `contract/test_engines.py`."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import ray
import torch

from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines import optuna_engine, ray_engine, ray_trial
from hemaml.engines.optuna_engine import searched

LATE_S = 300
"""What takes longer hangs, even on a busy machine."""
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
        time.sleep(2 * LATE_S)
    return value(assigned, report)


def test_a_trial_that_hangs_past_its_limit_fails_and_the_rest_goes_on(study):
    begun = time.monotonic()
    run(hangs, study, engine="ray", trial_hours=1 / 3600, workers=2)
    assert time.monotonic() - begun < LATE_S
    trials = searched(study)
    assert [t.ending for t in trials].count("finished") == 3
    assert trials[1].ending == "failed" and "longer than `trial_hours" in trials[1].reason


def test_a_trial_that_asks_for_more_than_a_node_has_is_refused(study):
    with pytest.raises(ConfigError, match="asks for 64 processors"):
        run(value, study, resources={"cpu": 64})


def test_a_ctrl_c_gives_back_what_was_reserved_in_a_ray_of_the_callers_own(study):
    """Else the next search of the process would wait for it for ever."""

    def interrupted(event):
        if event.kind == "ended":
            raise KeyboardInterrupt

    sweep = Sweep(trials=4, sampler="random", workers=2)
    with pytest.raises(KeyboardInterrupt):
        ray_engine.search(value, SPACE, sweep, study, interrupted)
    late = time.monotonic() + LATE_S
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < late
        time.sleep(0.1)


def test_what_cannot_be_given_back_does_not_hide_why_the_search_ended(caplog):
    def cleanup():
        raise KeyError("a group that an interrupted manager has freed already")

    winding = ray_engine._Winding(desk=None, scheduler=None)
    manager = SimpleNamespace(cleanup=cleanup)
    winding.controller = SimpleNamespace(_tune_controller=SimpleNamespace(_actor_manager=manager))
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            winding.give_back()
    assert "may keep what it reserved" in caplog.text


PACKED = """
import json, sys, time
from pathlib import Path
import ray
from hemaml.core.sweep import Sweep
from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.engines import ray_cluster, ray_engine

def trial(assigned, report):
    gpu = ray.get_runtime_context().get_assigned_resources()["GPU"]
    begun = time.time()
    notes = Path(sys.argv[1]) / str(assigned.number)
    notes.touch()
    while len(list(notes.parent.glob("[0-7]"))) < 4 and time.time() < begun + 60:
        time.sleep(0.01)  # until as many as fit have begun
    time.sleep(0.1)
    with notes.open("a") as notes:
        notes.write(json.dumps([gpu, begun, time.time()]) + "\\n")
    if assigned.number == 2 or (assigned.number == 1 and gpu < .5):
        return Outcome("out_of_memory", reason="no memory for a batch of 32")
    return Outcome("finished", (1.0,))

if __name__ == "__main__":
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    ray_cluster.start(num_cpus=4, num_gpus=1)
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    study = Study("s", sys.argv[1] + "/s.journal", ("maximize",))
    sweep = Sweep(trials=8, workers=4, sampler="random", resources={"gpu": .25})
    ray_engine.search(trial, space, sweep, study, lambda event: None)
"""


@pytest.mark.slow
def test_shares_of_a_gpu_are_packed_and_doubled_once_where_its_memory_is_short(tmp_path):
    """On a logical GPU, which Ray gives out as it does a real one."""
    script = tmp_path / "packed.py"
    script.write_text(PACKED.replace("sys.argv[1]", repr(str(tmp_path))))
    subprocess.run([sys.executable, str(script)], check=True, timeout=LATE_S)
    notes = {
        number: [json.loads(line) for line in (tmp_path / str(number)).read_text().splitlines()]
        for number in range(8)
    }
    shares = {number: [gpu for gpu, _, _ in notes[number]] for number in notes}
    assert shares == {n: [0.25, 0.5] if n in (1, 2) else [0.25] for n in range(8)}
    intervals = [note for found in notes.values() for note in found]
    at_once = [sum(g for g, b, e in intervals if b <= now < e) for _, now, _ in intervals]
    assert max(at_once) == 1.0
    trials = searched(Study("s", str(tmp_path / "s.journal"), ("maximize",)))
    assert [t.number for t in trials if t.ending != "finished"] == [2]
    assert trials[2].ending == "out_of_memory" and "a batch of 32" in trials[2].reason


def test_a_gpu_is_used_once_what_was_stopped_has_given_its_memory_back(monkeypatch):
    free = iter([1, 5, 23, 24])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (next(free), 100))
    assert ray_trial.await_gpu_memory(0.25)
    assert list(free) == [24]  # the context keeps some: 23 of 25 is all there is to have
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 100))
    assert not ray_trial.await_gpu_memory(0.25, seconds=0.2)


def test_a_trial_keeps_to_as_many_threads_as_it_was_given(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    for cpu in (3, 1.5, 0.5):
        ray_trial.take_share(cpu, 0)
        assert os.environ["OMP_NUM_THREADS"] == str(threads[-1])
    assert threads == [3, 1, 1]


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [
        ([(8, 0)], 4, (2, 0)),
        ([(2, 0)], 4, (1, 0)),
        ([(3, 0), (3, 0)], 4, (1, 0)),  # 6 // 4, and also 2 would leave one worker out
        ([(4, 0), (4, 0)], 4, (2, 0)),
        ([(16, 1)], 4, (4, 0.25)),
        ([(16, 4)], 2, (8, 1)),
        ([(16, 2)], 3, (5, 0.5)),
    ],
)
def test_by_default_the_workers_divide_what_there_is(nodes, workers, share):
    described = [{"Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in nodes]
    given = ray_engine.share_of(Sweep(workers=workers), described)
    assert (given.cpu, given.gpu) == share
