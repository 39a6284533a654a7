"""A worker's share of the machine."""

import os

import pytest
import torch

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
