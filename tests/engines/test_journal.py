"""The journal: a line that could not be finished costs itself and nothing else."""

import os

import optuna
import pytest

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


def test_ctrl_c_stays_one_just_after_the_lock_was_let_go(tmp_path, monkeypatch):
    path = tmp_path / "optuna.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    unlink = os.unlink

    def interrupted(name):
        unlink(name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), storage_errors(str(path)):
        monkeypatch.setattr(os, "unlink", interrupted)
        try:
            study.ask()
        finally:
            monkeypatch.undo()
    add_trials(path, 1)
    assert values(path)[-1] == 0.0
