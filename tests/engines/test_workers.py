"""A worker's share of the machine, and what its death means."""

import os
import signal
from functools import partial

import pytest
import torch

from hemaml.core.errors import OutOfMemory, StoreError, TrialError
from hemaml.core.search import Assigned, Outcome
from hemaml.engines import workers


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 2, ["0", "1", "0", "1"]),  # one GPU each, round robin
        (None, 1, ["0", "0", "0", "0"]),  # all share one
        ("3,5", 2, ["3", "5", "3", "5"]),  # the user's choice stays the outer bound
        ("GPU-ab,MIG-cd", 2, ["GPU-ab", "MIG-cd", "GPU-ab", "MIG-cd"]),
        (None, 0, [None] * 4),
        ("", 0, [""] * 4),  # GPUs hidden on purpose stay hidden
    ],
)
def test_each_worker_is_pinned_to_its_gpu(monkeypatch, visible, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch, "set_num_threads", lambda num: None)
    given = []
    for slot in range(4):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        workers._take_share(slot, 4)
        given.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert given == expected


def test_workers_divide_the_cores(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for num in (1, 2, 3, 16):
        workers._take_share(0, num)
    assert threads == [8, 4, 2, 1]


TRIALS = [Assigned(number, {}) for number in range(3)]


def killed(counter, kills, assigned, report):
    """Trial 1 is killed, while the system kills so many processes for their memory."""
    if assigned.number == 1:
        counter.write_text(f"oom_kill {kills}")
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome("finished", (float(assigned.number),))


@pytest.mark.parametrize(("kills", "kind"), [(0, TrialError), (1, OutOfMemory)])
def test_a_death_is_that_of_a_trial_and_not_of_a_store(tmp_path, monkeypatch, kills, kind):
    counter = tmp_path / "vmstat"
    counter.write_text("oom_kill 0")
    monkeypatch.setattr(workers, "VMSTAT", counter)
    with pytest.raises(TrialError, match="one died: exit code -9.* Run it again") as found:
        workers.evaluate_all(partial(killed, counter, kills), TRIALS, 2)
    assert type(found.value) is kind


def lost(assigned, report):
    raise StoreError("the store must answer")


def test_what_must_end_the_whole_is_raised_as_it_is():
    with pytest.raises(StoreError, match="the store must answer"):
        workers.evaluate_all(lost, TRIALS, 2)
