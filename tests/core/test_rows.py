"""Tables of rows on disk: computed once, shared by processes, whole after a kill."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from hemaml.core.cache import Cache
from hemaml.core.errors import StoreError

KEY = {"size": 4, "version": 1}


def row(item):
    return np.full((2, 3), int(item), dtype=np.float32)


def table(cache, items, *, batch=4, key=KEY, log=None):
    def compute(positions):
        if log is not None:
            log.append([items[p] for p in positions])
        return np.stack([row(items[p]) for p in positions])

    return cache.rows("op", key, items, compute, batch=batch)


def names(*numbers):
    return [str(number) for number in numbers]


def assert_right(rows, items):
    assert len(rows) == len(items)
    assert np.array_equal(rows[:], np.stack([row(item) for item in items]))


def test_each_row_is_computed_once_for_all_processes(tmp_path):
    log = []
    assert_right(table(Cache(tmp_path), names(*range(6)), log=log), names(*range(6)))
    assert log == [names(0, 1, 2, 3), names(4, 5)]
    del log[:]
    items = names(9, 3, 0, 8, 3, 9)
    assert_right(table(Cache(tmp_path), items, log=log), items)
    assert log == [names(9, 8)]


def test_rows_are_gathered_by_position(tmp_path):
    for cache in (Cache.off(), Cache(tmp_path)):
        rows = table(cache, names(5, 6, 7, 6))
        assert rows.row_shape == (2, 3)
        assert rows[[2, 0]][:, 0, 0].tolist() == [7, 5]
        assert rows[np.array([3])][:, 0, 0].tolist() == [6]
        assert [batch[:, 0, 0].tolist() for batch in rows.batches(3)] == [[5, 6, 7], [6]]


def test_the_cache_changes_neither_values_nor_types(tmp_path):
    for dtype in (np.uint8, np.float16, np.float32, np.int64):
        values = (np.arange(60).reshape(5, 3, 4) * 3).astype(dtype)
        key = {"dtype": np.dtype(dtype).name}
        found = [
            cache.rows("op", key, names(*range(5)), lambda p, v=values: v[p], batch=2)
            for cache in (Cache.off(), Cache(tmp_path), Cache(tmp_path))
        ]
        assert all(rows[:].dtype == dtype and np.array_equal(rows[:], values) for rows in found)


def test_every_part_of_the_key_is_another_table(tmp_path):
    for version in (1, 2):
        log = []
        table(Cache(tmp_path), names(1), key={"version": version}, log=log)
        assert log == [names(1)]


def test_what_is_read_cannot_be_written_and_a_gather_is_a_copy(tmp_path):
    rows = table(Cache(tmp_path), names(1, 2))
    with pytest.raises(ValueError, match="read-only"):
        rows.table[0] = 7
    rows[[0]][:] = 7
    assert_right(rows, names(1, 2))


def test_a_fault_in_the_middle_keeps_the_batches_before_it(tmp_path):
    def compute(positions):
        if 4 in positions:
            raise RuntimeError("no more")
        return np.stack([row(p) for p in positions])

    with pytest.raises(RuntimeError, match="no more"):
        Cache(tmp_path).rows("op", KEY, names(*range(8)), compute, batch=2)
    log = []
    assert_right(table(Cache(tmp_path), names(*range(8)), log=log), names(*range(8)))
    assert log == [names(4, 5, 6, 7)]


@pytest.mark.parametrize("place", ["rows", "keys"])
def test_bytes_that_a_kill_left_behind_do_not_count(tmp_path, place):
    table(Cache(tmp_path), names(1, 2))
    (file,) = tmp_path.glob(f"op/*/*.rows/{place}")
    with file.open("ab") as opened:  # what an append that did not end has written
        opened.write(b"7" * 11)
    items = names(1, 2, 3, 77)
    assert_right(table(Cache(tmp_path), names(1, 2)), names(1, 2))
    assert_right(table(Cache(tmp_path), items), items)
    assert_right(table(Cache(tmp_path), items), items)


def test_rows_that_a_loss_of_power_cut_off_are_computed_again(tmp_path):
    table(Cache(tmp_path), names(1, 2, 3))
    (file,) = tmp_path.glob("op/*/*.rows/rows")
    with file.open("r+b") as opened:
        opened.truncate(30)  # a row has 24 bytes
    log = []
    for _ in range(2):
        assert_right(table(Cache(tmp_path), names(2, 3, 1), log=log), names(2, 3, 1))
    assert log == [names(2, 3)]


def fill_slowly(folder):
    """Rows of 0.5 MB, one a batch: a kill hits an append more often than not."""
    compute = lambda positions: np.full((1, 1 << 19), positions[0], dtype=np.uint8)  # noqa: E731
    Cache(Path(folder)).rows("op", KEY, names(*range(200)), compute, batch=1)


def test_kills_in_the_middle_of_appends_leave_whole_rows(tmp_path):
    context = multiprocessing.get_context("forkserver")
    delays = np.random.default_rng(0).uniform(0, 0.02, 4)
    for delay in delays:
        process = context.Process(target=fill_slowly, args=(str(tmp_path),))
        before = sizes(tmp_path)
        process.start()
        while process.is_alive() and sizes(tmp_path) == before:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    log = []

    def compute(positions):
        log.extend(positions)
        return np.full((1, 1 << 19), positions[0], dtype=np.uint8)

    rows = Cache(tmp_path).rows("op", KEY, names(*range(200)), compute, batch=1)
    assert all((rows[[number]] == number).all() for number in range(200))
    assert len(log) <= 200 - len(delays)  # what was there has been kept


def sizes(folder):
    return [file.stat().st_size for file in folder.glob("op/*/*.rows/keys")]


def fill(folder, first, calls):
    for _ in range(3):
        items = names(*range(first, first + 40))
        log = []
        assert_right(table(Cache(Path(folder)), items, log=log), items)
        calls.put(sum(map(len, log)))


def run_all(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_processes_that_overlap_compute_each_row_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    calls = context.SimpleQueue()
    run_all(*(context.Process(target=fill, args=(str(tmp_path), n, calls)) for n in (0, 20, 30)))
    assert sum(calls.get() for _ in range(9)) == 70


def use_and_evict(folder, seed):
    """Reads, fills and evicts at random, as trials of different sweeps do with a small cap."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        items = names(*rng.integers(0, 30, 6))
        rows = table(Cache(Path(folder)), items, key={"table": int(rng.integers(3))})
        if rng.random() < 0.4:
            Cache(Path(folder)).clear()
        assert_right(rows, items)  # mapped before it was removed


def test_processes_may_evict_what_others_use(tmp_path):
    context = multiprocessing.get_context("forkserver")
    run_all(*(context.Process(target=use_and_evict, args=(str(tmp_path), n)) for n in range(3)))


def test_use_and_clear_count_tables(tmp_path):
    cache = Cache(tmp_path)
    table(cache, names(*range(10)))
    (use,) = cache.use()
    assert (use.operation, use.entries) == ("op", 1)
    assert use.size >= 10 * 24
    assert cache.clear() == use.size
    assert cache.use() == []
    log = []
    table(cache, names(1), log=log)
    assert log == [names(1)]


def test_the_cap_removes_the_table_that_was_unused_longest(tmp_path):
    cache = Cache(tmp_path, cap=6_000)  # a table of 100 rows has 2400 bytes and its keys
    for number in range(3):
        table(cache, names(*range(100)), key={"table": number})
        for file in tmp_path.glob("op/*/*.rows/keys"):  # time passes
            stat = file.stat()
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))
        if number:
            table(cache, names(1), key={"table": 0})
    log = []
    table(Cache(tmp_path), names(1), key={"table": 0}, log=log)
    table(Cache(tmp_path), names(1), key={"table": 2}, log=log)
    assert log == []
    table(Cache(tmp_path), names(1), key={"table": 1}, log=log)
    assert log == [names(1)]


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="the cache must be writable"):
        table(Cache(tmp_path / "file"), names(1))
