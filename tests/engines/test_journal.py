"""The journal: a line that could not be finished costs itself and nothing else."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from filelock import FileLock

from hemaml.core.errors import StoreError
from hemaml.engines.journal import open_journal
from hemaml.engines.optuna_study import open_storage, storage_errors


def add_trials(path, num):
    study = optuna.create_study(storage=open_journal(path), study_name="s", load_if_exists=True)
    for value in range(num):
        study.tell(study.ask(), float(value))


def values(path):
    study = optuna.load_study(study_name="s", storage=open_journal(path))
    return [trial.value for trial in study.trials]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_line_cut_off_by_a_full_disk_is_dropped(tmp_path, cut):
    path = tmp_path / "deep" / "optuna.journal"
    add_trials(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])  # the third trial's end
    add_trials(path, 1)
    assert values(path) == [0.0, 1.0, None, 0.0]
    assert path.read_bytes().startswith(whole[: whole.rindex(b"\n", 0, -1) + 1])


def test_a_torn_line_longer_than_a_chunk_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("hemaml.engines.journal.CHUNK", 16)
    path = tmp_path / "optuna.journal"
    add_trials(path, 1)
    with path.open("ab") as file:
        file.write(b"x" * 100)
    add_trials(path, 1)
    assert values(path) == [0.0, 0.0] and b"x" * 10 not in path.read_bytes()


def test_a_writer_that_is_killed_keeps_nobody_waiting(tmp_path):
    path = tmp_path / "optuna.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    holding = f"""
import pathlib, time
from hemaml.engines.journal import held_journal
with held_journal(pathlib.Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(study.ask)
            time.sleep(0.5)
            assert not asked.done(), "it waits for who lives"
            process.kill()
            begun = time.monotonic()
            asked.result()
    assert time.monotonic() - begun < 10


def test_a_journal_without_any_whole_line_begins_anew(tmp_path):
    path = tmp_path / "optuna.journal"
    path.write_bytes(b'{"op_co')
    add_trials(path, 2)
    assert values(path) == [0.0, 1.0]


def test_a_whole_journal_is_left_as_it_is(tmp_path):
    path = tmp_path / "optuna.journal"
    add_trials(path, 2)
    before = path.read_bytes()
    add_trials(path, 1)
    assert path.read_bytes().startswith(before)


def test_a_damaged_journal_is_told(tmp_path):
    path = tmp_path / "optuna.journal"
    path.write_text("not JSON\n{}\n")
    with pytest.raises(StoreError, match=r"must take reads and writes, but .*optuna\.journal gave"):
        open_storage(str(path))


@pytest.mark.parametrize("fault", [None, OSError("the lock cannot be let go")])
def test_ctrl_c_stays_one_and_leaves_the_journal_to_others(tmp_path, monkeypatch, fault):
    path = tmp_path / "optuna.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    release = FileLock.release

    def interrupted(file):
        raise KeyboardInterrupt

    def let_go(lock):
        release(lock)
        if fault:
            raise fault

    with pytest.raises(KeyboardInterrupt), storage_errors(str(path)):
        monkeypatch.setattr(os, "fsync", interrupted)
        monkeypatch.setattr(FileLock, "release", let_go)
        try:
            study.ask()
        finally:
            monkeypatch.undo()
    add_trials(path, 1)
    assert values(path)[-1] == 0.0
