"""Backups of an embedded store, taken while sweeps run, and what becomes of damaged ones."""

import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import optuna
import pytest
from optuna.study import StudyDirection
from server_sweep import TRIALS
from sweeping import LATE_S, sweep_of

import hemaml
from hemaml.backup import backup, snapshots
from hemaml.backup.databases import sqlite_engine
from hemaml.backup.manifest import NAME
from hemaml.backup.restore import restore
from hemaml.backup.stores import stores_in_use
from hemaml.core import settings
from hemaml.core.errors import ConfigError, DataError, StoreError
from hemaml.doctor import examine, examine_sweep
from hemaml.engines.journal import open_journal
from hemaml.record import find_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker


def elsewhere(workplace, monkeypatch, name="other"):
    """Another working folder, whose store is empty."""
    folder = workplace / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def trial_runs(sweep_id):
    parent = find_sweep(sweep_id)
    return {run.id: run for run in tracker().find({"kind": "trial"}, parent=parent.id)}


@pytest.mark.slow
def test_a_backup_taken_in_a_running_sweep_is_sound_and_the_sweep_goes_on_from_it(
    stub, workplace, monkeypatch
):
    with sweep_of("native") as sweep:
        sweep_id = sweep.read_until("sweep").split()[1]
        backups = []
        for _ in range(2):
            sweep.read_until("ended")
            backups.append(workplace / f"backup-{len(backups)}")
            backup(backups[-1])
        code, told = sweep.end()
    assert code == 0, told
    for number, folder in enumerate(backups):
        elsewhere(workplace, monkeypatch, f"other-{number}")
        restore(folder)
        found = {f.what: f.state for f in examine_sweep(sweep_id, repair=True)}
        assert found.pop("runs left RUNNING") in ("repaired", "ok")
        assert set(found.values()) == {"ok"}, found
    assert not [f for f in examine() if f.state == "wrong"]
    before = {run.id for run in trial_runs(sweep_id).values() if run.tags["outcome"] == "finished"}
    assert before, "trials that had finished when the backup was made"
    with sweep_of("native", sweep_id) as again:
        code, told = again.end()
    assert code == 0, told
    assert {found.state for found in examine_sweep(sweep_id)} == {"ok"}
    runs = trial_runs(sweep_id)
    assert before <= set(runs) and len(runs) == TRIALS
    assert tracker().artifact_location == (workplace / "other-1/mlruns/artifacts/stub").as_uri()
    assert hemaml.report()


def test_all_databases_are_seen_as_they_were_at_one_moment(workplace):
    tracker().start("before", {"kind": "run"})
    storage = open_journal(workplace / "mlruns" / "optuna.journal")
    hold = workplace / "seen.sqlite"
    with snapshots(stores := stores_in_use()) as seen:
        tracker().start("after", {"kind": "run"})
        storage.create_new_study([], "after")
        seen[stores.record].dump(hold)
        seen[stores.studies].dump(workplace / "seen.journal")
    with sqlite_engine(hold).connect() as rows:
        assert rows.exec_driver_sql("select name from runs").scalars().all() == ["before"]
    assert not (workplace / "seen.journal").read_bytes()


def test_record_and_journal_are_seen_at_the_same_moment_however_fast_they_are_written(workplace):
    stores, ended = stores_in_use(), threading.Event()
    storage = open_journal(stores.studies.path)
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "written")
    lines = stores.studies.path.read_bytes().count(b"\n")

    def write():
        """Always to one, then to the other: never may they differ by more than one."""
        with closing(sqlite3.connect(stores.record.path, isolation_level=None)) as record:
            record.execute("create table written (number)")
            for number in itertools.takewhile(lambda _: not ended.is_set(), itertools.count()):
                record.execute(f"insert into written values ({number})")
                storage.set_study_user_attr(study, "number", number)

    writer = threading.Thread(target=write)
    writer.start()
    copy, differences = workplace / "copy.journal", set()
    try:
        while not storage.get_study_user_attrs(study):
            time.sleep(0.01)
        for _ in range(40):
            with snapshots(stores) as seen:
                time.sleep(0.01)
                rows = seen[stores.record].rows.exec_driver_sql("select count(*) from written")
                seen[stores.studies].dump(copy)
                differences.add(rows.scalar_one() - copy.read_bytes().count(b"\n") + lines)
    finally:
        ended.set()
        writer.join()
    assert differences <= {0, 1}


@pytest.fixture
def kept(workplace):
    """A backup of a store with one run, which has a file."""
    run = tracker().start("one", {"kind": "run"})
    run.log_text("text", "note.txt")
    run.end("FINISHED")
    backup(workplace / "kept")
    return workplace / "kept"


def test_a_backup_is_for_its_owner_and_never_goes_over_another(kept):
    assert kept.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="absent or empty"):
        backup(kept)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / NAME).unlink(), "was not finished"),
        (lambda folder: (folder / NAME).write_text("{"), "as it was written"),
        (lambda folder: next(folder.rglob("note.txt")).unlink(), "changed or strange"),
        (lambda folder: (folder / "record.sqlite").write_bytes(b"x"), "changed or strange"),
        (lambda folder: (folder / "more").touch(), "changed or strange"),
    ],
)  # fmt: skip
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    kept, workplace, monkeypatch, damage, told
):
    damage(kept)
    folder = elsewhere(workplace, monkeypatch)
    with pytest.raises(DataError, match=told):
        restore(kept)
    assert not list(folder.iterdir())


def test_a_backup_by_a_newer_mlflow_or_another_hemaml_is_refused(kept):
    manifest = json.loads((kept / NAME).read_text())
    newer = [part | {"revision": "ffff"} for part in manifest["parts"]]
    (kept / NAME).write_text(json.dumps(manifest | {"parts": newer}))
    with pytest.raises(StoreError, match="must not be newer"):
        restore(kept)
    (kept / NAME).write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(DataError, match="of format 1"):
        restore(kept)


def test_a_store_in_use_is_replaced_only_if_told_and_after_a_backup_of_it(kept, workplace):
    run = tracker().start("two", {"kind": "run"})
    run.log_text("text", "later.txt")
    run.end("FINISHED")
    stranger = workplace / "mlruns" / "artifacts" / "stub" / "of_no_run.txt"
    stranger.write_text("text")

    def names():
        with closing(sqlite3.connect(workplace / "mlruns" / "mlflow.db")) as connection:
            return {name for (name,) in connection.execute("select name from runs")}

    done = {}
    for words in ([], ["--replace", "before"]):
        # In a process of its own: this one has the store open.
        done[len(words)] = subprocess.run(
            [sys.executable, "-m", "hemaml.cli", "restore", str(kept), *words],
            capture_output=True, text=True, timeout=LATE_S,
        )  # fmt: skip
    assert done[0].returncode == 1 and "--replace" in done[0].stderr
    assert "a process has" in done[2].stderr, "this process has the store open"
    assert names() == {"one", "two"} and stranger.exists()
    stranger.unlink()
    run._client._tracking_client.store.engine.dispose()
    shutil.rmtree(workplace / "before")
    restore(kept, replace=workplace / "before")
    assert names() == {"one"} and not list((workplace / "mlruns").rglob("later.txt"))
    assert list((workplace / "mlruns").rglob("note.txt"))
    restore(workplace / "before", replace=workplace / "again")
    assert names() == {"one", "two"} and list((workplace / "mlruns").rglob("later.txt"))


@pytest.mark.parametrize("damage", ["lost", "no database", "torn"])
def test_a_store_whose_record_is_lost_or_damaged_is_brought_back(kept, workplace, damage):
    record = workplace / "mlruns" / "mlflow.db"
    stranger = workplace / "mlruns" / "artifacts" / "stub" / "precious.txt"
    stranger.write_text("of no run")
    open_journal(workplace / "mlruns" / "optuna.journal")
    optuna.create_study(storage=open_journal(workplace / "mlruns" / "optuna.journal"))
    tracker()._client._tracking_client.store.engine.dispose()
    content = record.read_bytes()
    if damage == "lost":
        record.unlink()
    else:
        torn = content[:8192] + b"\xff" * (len(content) - 8192)
        record.write_bytes(torn if damage == "torn" else b"no database" * 1000)
    told = "--replace" if damage == "lost" else "disks and databases|--replace"
    with pytest.raises((ConfigError, StoreError), match=told):
        restore(kept)
    restore(kept, replace=workplace / "before")
    assert [run.name for run in tracker().find({})] == ["one"]
    moved = {str(p.relative_to(workplace / "before")) for p in (workplace / "before").rglob("*")}
    assert "optuna.journal" in moved and ("mlflow.db" in moved) == (damage != "lost")
    assert "artifacts/stub/precious.txt" in moved and not stranger.exists()


def test_files_that_no_run_has_are_moved_beside_the_backup_of_what_is_replaced(kept, workplace):
    stranger = workplace / "mlruns" / "artifacts" / "stub" / "precious.txt"
    stranger.write_text("of no run")
    tracker()._client._tracking_client.store.engine.dispose()
    restore(kept, replace=workplace / "before")
    moved = workplace / "before-of-no-run" / "stub" / "precious.txt"
    assert moved.read_text() == "of no run" and not stranger.exists()
    restore(workplace / "before", replace=workplace / "again")  # it is a backup all the same


def test_files_that_no_run_has_are_not_replaced(kept, workplace, monkeypatch):
    folder = elsewhere(workplace, monkeypatch)
    stranger = folder / "mlruns" / "artifacts" / "stub" / "note.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    with pytest.raises(ConfigError, match="files that no run has"):
        restore(kept)
    assert stranger.read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(kept, workplace):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from hemaml.cli import main; sys.argv = ['hemaml', 'backup', 'full']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LATE_S
    )
    assert done.returncode == 1 and done.stderr.startswith("error: disks"), done.stderr
    assert not [path for path in workplace.iterdir() if "full" in path.name]


def test_a_folder_without_a_store_and_a_foreign_database_are_told(workplace, monkeypatch):
    elsewhere(workplace, monkeypatch)
    with pytest.raises(StoreError, match="does not exist"):
        backup("kept")
    monkeypatch.setenv("HEMAML_STUDY_STORAGE", "mysql://somebody:secret@host/studies")
    with pytest.raises(ConfigError, match="are in mysql") as told:
        backup("kept")
    assert "secret" not in str(told.value)
