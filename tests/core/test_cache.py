"""The cache: right or absent, across processes, faults and a cap."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from hemaml.core.cache import Cache, array_digest
from hemaml.core.errors import StoreError


def value(i=0):
    return {"a": np.arange(i, i + 1000, dtype=np.float32), "b": np.eye(3, dtype=np.int32)}


def test_computes_once_and_gives_equal_arrays(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return value()

    for cache in (Cache(tmp_path), Cache(tmp_path)):  # the second reads the first one's file
        for _ in range(2):
            got = cache.arrays("op", {"image": "x", "scale": 16}, compute)
            assert set(got) == {"a", "b"}
            assert all(np.array_equal(got[k], v) and got[k].dtype == v.dtype
                       for k, v in value().items())  # fmt: skip
    assert len(calls) == 1


def test_every_part_of_the_key_counts(tmp_path):
    cache = Cache(tmp_path)
    keys = [{"s": 16}, {"s": 16.5}, {"s": 16, "t": 0}, {"s": "16"}]
    for i, key in enumerate(keys):
        cache.arrays("op", key, lambda i=i: value(i))
    cache.arrays("other", keys[0], lambda: value(9))
    again = Cache(tmp_path)
    for i, key in enumerate(keys):
        assert again.arrays("op", key, lambda: pytest.fail("not found"))["a"][0] == i


def test_off_keeps_nothing(tmp_path):
    calls = []
    for _ in range(2):
        Cache.off().arrays("op", {}, lambda: calls.append(1) or value())
    assert len(calls) == 2


def test_a_damaged_entry_is_computed_again(tmp_path):
    Cache(tmp_path).arrays("op", {}, value)
    (entry,) = tmp_path.glob("op/*/*.safetensors")
    entry.write_bytes(entry.read_bytes()[:100])
    assert Cache(tmp_path).arrays("op", {}, lambda: value(5))["a"][0] == 5
    assert Cache(tmp_path).arrays("op", {}, lambda: pytest.fail("not mended"))["a"][0] == 5


def test_use_and_clear(tmp_path):
    cache = Cache(tmp_path)
    for i in range(3):
        cache.arrays("op", {"i": i}, value)
    (tmp_path / "notes.txt").write_text("keep me")
    (use,) = cache.use()
    assert (use.operation, use.entries) == ("op", 3) and use.size > 3 * 4000
    assert cache.clear() == use.size
    assert cache.use() == [] and (tmp_path / "notes.txt").exists()


def test_the_cap_removes_what_was_unused_longest(tmp_path):
    cache = Cache(tmp_path, cap=20_000)
    for i in range(30):
        cache.arrays("op", {"i": i}, lambda i=i: value(i))
    assert sum(use.size for use in cache.use()) <= 21_500
    fresh = Cache(tmp_path)
    assert fresh.arrays("op", {"i": 29}, lambda: pytest.fail("the newest is gone"))["a"][0] == 29


def test_an_unwritable_folder_is_told(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(StoreError, match="the cache must be writable"):
        Cache(blocked).arrays("op", {}, value)


def hammer(folder):
    cache = Cache(Path(folder), cap=60_000)
    for i in range(60):
        got = cache.arrays("op", {"i": i % 20}, lambda i=i: value(i % 20))
        assert got["a"][0] == i % 20


def test_many_processes_share_it(tmp_path):
    context = multiprocessing.get_context("forkserver")
    workers = [context.Process(target=hammer, args=(str(tmp_path),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert not list(tmp_path.glob("**/*.part"))


def test_of_two_that_compute_at_once_both_take_the_first(tmp_path):
    """Nothing that is trained is the same twice."""
    slow, fast = Cache(tmp_path), Cache(tmp_path)

    def overtaken():
        fast.arrays("segmenters", {"n": 1}, lambda: {"value": np.array([1])})
        return {"value": np.array([2])}

    found = slow.arrays("segmenters", {"n": 1}, overtaken)
    assert found["value"].tolist() == [1]
    assert slow.arrays("segmenters", {"n": 1}, overtaken)["value"].tolist() == [1]


def test_digests_tell_shape_and_content():
    a = np.zeros((2, 3), dtype=np.uint8)
    assert array_digest(a) == array_digest(a.copy())
    assert array_digest(a) != array_digest(a.reshape(3, 2))
    assert array_digest(a) != array_digest(a + 1)
    assert array_digest(np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1]) != array_digest(
        np.arange(6, dtype=np.uint8).reshape(2, 3)
    )
