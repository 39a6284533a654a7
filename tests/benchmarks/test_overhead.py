"""What the platform adds to a bare `list(fit(...))`: record, best model, summary, twin lookup.

    pytest tests/benchmarks/test_overhead.py --benchmark-only -s

The objective is the stub of the tests, which costs nothing, on a SQLite store that is warm: the
first trial is not counted. Its model and state are a few bytes, so the price of writing larger
ones is not in here. The first figure is also given in seconds of the processor, which others on the
machine do not move; what the clock shows beyond it is waiting for the disk and for them.
"""

import time
from dataclasses import replace
from statistics import median

import pytest

from hemaml.core.experiment import plan_from
from hemaml.core.objective import Context
from hemaml.core.search import Assigned
from hemaml.record import open_job
from hemaml.trial import run_trial

NUM_TRIALS = 10
SLOW_STEPS, SLOW_S = 6, 1.0
LONG_S = 60
CHECKPOINT_S = 10
"""Default of `checkpoint_seconds`."""


@pytest.fixture
def job(stub):
    """A stub sweep whose store has seen one trial."""
    document = {**stub.EXPERIMENT, "params": {}, "sweep": {}}
    opened = open_job(plan_from(document, stub.SPACE), sweep_id="bench")
    parent = opened.tracker.start("bench", {"kind": "sweep"})
    ready = replace(opened, parent=parent.id)
    seconds_of_trial(ready, 0)
    return ready


def seconds_of_trial(job, number):
    start = time.perf_counter()
    outcome = run_trial(job, Assigned(number, {"x": number / 1000}), lambda step, value: None)
    seconds = time.perf_counter() - start
    assert (outcome.ending, outcome.reused_from) == ("finished", "")
    return seconds


def seconds_of_fit(job, number):
    start = time.perf_counter()
    params = job.plan.params({"x": number / 1000})
    assert list(job.plan.objective.fit(params, job.folds[0], Context()))
    return time.perf_counter() - start


def test_overhead_of_a_trial(benchmark, job):
    bare, added, busy = [], [], []

    def trial(number):
        bare.append(seconds_of_fit(job, number))
        begun = time.process_time()
        added.append(seconds_of_trial(job, number) - bare[-1])
        busy.append(time.process_time() - begun)

    numbers = iter(range(1, NUM_TRIALS + 1))
    benchmark.pedantic(trial, setup=lambda: ((next(numbers),), {}), rounds=NUM_TRIALS)
    print(
        f"\nbare fit {median(bare):.4f} s; the platform adds {median(added):.3f} s a trial "
        f"({min(added):.3f} to {max(added):.3f} s in {NUM_TRIALS} trials), of which the processor "
        f"works {median(busy):.3f} s"
    )
    assert len(added) == NUM_TRIALS
    assert min(added) > 0


def test_share_of_a_long_trial(benchmark, job, stub):
    """Steps of a second, so that each sends its metrics, scaled up from 6 s to 60 s."""
    slept = []

    def sleep(step):
        begun = time.perf_counter()
        time.sleep(SLOW_S)
        slept.append(time.perf_counter() - begun)

    def added(number, checkpoint_seconds):
        """Seconds on top of the steps' own."""
        slept.clear()
        how = {"checkpoint_seconds": checkpoint_seconds}
        document = {**stub.EXPERIMENT, "params": {"epochs": SLOW_STEPS}, "sweep": how}
        slow = replace(job, plan=plan_from(document, stub.SPACE))
        _ = slow.folds, slow.tracker  # a replaced job opens its tools anew
        seconds = seconds_of_trial(slow, number) - sum(slept)
        assert len(slept) == SLOW_STEPS
        assert seconds > 0
        return seconds

    short = median(seconds_of_trial(job, number) for number in range(1, 4))
    stub.on_step.append(sleep)
    busy = time.process_time()
    logged = benchmark.pedantic(added, args=(10, LONG_S), rounds=1)
    busy = time.process_time() - busy
    saved = added(11, 0)
    a_step, a_checkpoint = (logged - short) / SLOW_STEPS, (saved - logged) / SLOW_STEPS
    long = short + a_step * LONG_S / SLOW_S + a_checkpoint * LONG_S / CHECKPOINT_S
    print(
        f"\n{short:.3f} s a trial, {a_step:.4f} s a step, {a_checkpoint:.4f} s a checkpoint: "
        f"{long:.2f} s of a trial of {LONG_S} s with {LONG_S / SLOW_S:.0f} steps and "
        f"{LONG_S / CHECKPOINT_S:.0f} checkpoints, {long / LONG_S:.1%}; of the {logged:.2f} s of "
        f"the measured {SLOW_STEPS} steps the processor worked {busy:.2f} s"
    )
