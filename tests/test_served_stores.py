"""Backup, restoration and moving in, with PostgreSQL and an MLflow server with users: real ones."""

import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import stub as stub_module
from full_store import EPOCHS, contents, fill, links, trials
from mlflow import MlflowClient
from server_sweep import TRIALS
from servers import ADMIN, ADMIN_PASSWORD, PASSWORD, MlflowServer, running_postgres
from sweeping import LATE_S, sweep_of

import hemaml
from hemaml import conclude
from hemaml.backup import backup, snapshots
from hemaml.backup.postgres import Postgres
from hemaml.backup.restore import restore
from hemaml.backup.stores import Stores
from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.experiment import plan_from
from hemaml.core.provenance import this_process
from hemaml.doctor import examine, examine_sweep
from hemaml.migrate import migrate
from hemaml.record import find_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import Registry

NAME = "stub-stub"
"""Of the registered model of the stub's runs."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres():
    with running_postgres() as server:
        yield server


@pytest.fixture
def served(stub, postgres, tmp_path, monkeypatch):
    """Empty stores of a server of their own; a function makes them those in use."""
    number = random.randrange(10**9)  # of databases that no other test has
    postgres.create(f"mlflow_{number}", f"studies_{number}", f"users_{number}")
    folder = tmp_path / "server"
    folder.mkdir()
    server = MlflowServer(folder, postgres.url(f"mlflow_{number}"))
    environment = {
        "MLFLOW_TRACKING_URI": server.address,
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD,
        "HEMAML_STUDY_STORAGE": postgres.url(f"studies_{number}"),
        "HEMAML_RECORD_DATABASE": postgres.url(f"mlflow_{number}"),
        "HEMAML_USERS_DATABASE": postgres.url(f"users_{number}"),
    }

    def use():
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return server

    try:
        server.start()
        yield use
    finally:
        server.kill()


def command(*words, **changes):
    return subprocess.run(
        [sys.executable, "-m", "hemaml.cli", *words],
        env={**os.environ, **changes}, capture_output=True, text=True, timeout=LATE_S,
    )  # fmt: skip


def trial_runs(sweep_id):
    tracker = MlflowTracker(settings.tracking_uri(), "stub")
    parent = find_sweep(sweep_id).id
    return {run.id: run for run in tracker.find({"kind": "trial"}, parent=parent)}


def test_a_served_store_goes_back_to_what_it_was_in_a_running_sweep(served, tmp_path):
    server = served()
    with sweep_of("native") as sweep:
        sweep_id = sweep.read_until("sweep").split()[1]
        sweep.read_until("ended", times=2)
        backup(tmp_path / "kept", kept=str(server.folder / "artifacts"))
        assert sweep.end()[0] == 0
    at_the_end = trial_runs(sweep_id)
    with pytest.raises(ConfigError, match="--replace"):
        restore(tmp_path / "kept")
    done = command("restore", str(tmp_path / "kept"), "--replace", str(tmp_path / "before"))
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    found = {f.what: f.state for f in examine_sweep(sweep_id, repair=True)}
    assert found.pop("runs left RUNNING") == "repaired"
    assert set(found.values()) == {"ok"}, found
    runs = trial_runs(sweep_id)
    assert 2 <= len(runs) < len(at_the_end) and set(runs) < set(at_the_end)
    with sweep_of("native", sweep_id) as again:
        code, told = again.end()
    assert code == 0, told
    assert {f.state for f in examine_sweep(sweep_id)} == {"ok"}
    assert len(trial_runs(sweep_id)) == TRIALS


def test_a_database_that_cannot_be_reached_and_a_missing_pg_dump_are_told(
    stub, postgres, tmp_path, monkeypatch
):
    postgres.create("studies", "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("HEMAML_STUDY_STORAGE", postgres.url("studies"))
    wrong = command("backup", "kept", HEMAML_USERS_DATABASE=postgres.url("absent"))
    assert wrong.returncode == 1 and "HEMAML_USERS_DATABASE" in wrong.stderr
    assert wrong.stderr.startswith("error: the users database"), wrong.stderr
    wrong = command("backup", "kept", HEMAML_RECORD_DATABASE=postgres.url("x", "not-it"))
    assert "not-it" not in wrong.stderr and PASSWORD not in wrong.stderr
    monkeypatch.setenv("HEMAML_USERS_DATABASE", "none")
    monkeypatch.setattr(sys.modules["hemaml.backup.postgres"], "PROGRAMS", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs pg_dump"):
        backup(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_two_databases_are_seen_at_the_same_moment_however_fast_they_are_written(postgres):
    postgres.create("one", "two")
    stores = Stores(
        Postgres("record", postgres.url("one")), Postgres("studies", postgres.url("two")), None
    )
    for database in stores.databases:
        with database.connected() as connection:
            connection.exec_driver_sql("create table written (number bigint)")
            connection.commit()
    ended = threading.Event()

    def write():
        """Always to one, then to the other: never may they differ by more than one."""
        with stores.record.connected() as first, stores.studies.connected() as second:
            for number in itertools.takewhile(lambda _: not ended.is_set(), itertools.count()):
                for connection in (first, second):
                    connection.exec_driver_sql(f"insert into written values ({number})")
                    connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    query, differences = "select count(*) from written", set()
    try:
        for _ in range(40):
            with snapshots(stores) as seen:
                time.sleep(0.01)
                one, two = (
                    seen[database].rows.exec_driver_sql(query).scalar_one()
                    for database in stores.databases
                )
            differences.add(one - two)
    finally:
        ended.set()
        writer.join()
    assert two > 40 and differences <= {0, 1}


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory, empty_store):
    """The `mlruns` of a store with 500 runs; only for reading."""
    folder = tmp_path_factory.mktemp("many") / "mlruns"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    fill(f"sqlite:///{folder}/mlflow.db", str(folder / "optuna.journal"), 500, with_file=20)
    return folder


def test_a_store_of_500_runs_arrives_whole_and_is_not_touched(many_runs, served, monkeypatch):
    before = digest(many_runs)
    server = served()
    record = os.environ["HEMAML_RECORD_DATABASE"]
    elder = MlflowTracker(server.address, "elder")  # has taken the id that `stub` has here
    elder.start("there before", {"kind": "run"}).end("FINISHED")
    MlflowTracker(server.address, "stub")  # its experiment is there, but empty
    there = contents(record)
    with monkeypatch.context() as broken:
        broken.setattr(sys.modules["hemaml.migrate"], "copy_record", unplugged)
        with pytest.raises(StoreError, match="no power"):
            migrate(many_runs)
    assert contents(record) == there
    moved = migrate(many_runs)
    assert digest(many_runs) == before
    assert moved.counts["runs"] == 500 and moved.counts["metrics"] == 500 * (EPOCHS + 1)
    assert moved.renumbered == {"stub": (1, 2)}
    source = contents(f"sqlite:///{many_runs}/mlflow.db", renumbered=[(1, 2)])
    arrived = contents(record)
    for table, rows in source.items():
        if table not in ("experiments", "experiment_tags"):
            assert arrived[table] - there.get(table, Counter()) == rows, table
    assert trials(os.environ["HEMAML_STUDY_STORAGE"]) == trials(str(many_runs / "optuna.journal"))
    tracker = MlflowTracker(server.address, "stub")
    run = tracker.find({"number": "40"})[0]
    assert run.tags["view"] == links("2")
    assert tracker.read_text(run.id, "folder with space/note.txt") == "text of 40"
    assert tracker.curve(run.id, "val/score")[1] == [40 / (step + 1) for step in range(EPOCHS)]
    assert Registry(server.address).by_alias("bulk", "champion").number == 2
    client = MlflowClient(server.address)
    assert client.get_model_version("bulk", "2").source.startswith("mlflow-artifacts:/2/")
    assert MlflowTracker(server.address, "younger").experiment_id == "3"
    with pytest.raises(ConfigError, match="experiment 'stub', registered model 'bulk'"):
        migrate(many_runs)
    assert contents(record).keys() == arrived.keys()


def test_what_was_moved_goes_on_on_the_server(served, workplace, monkeypatch):
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])
    document = {**stub_module.EXPERIMENT, "params": {"epochs": 1, "x": 0.5}}
    champion = hemaml.run(plan_from(document, None))
    assert hemaml.promote(NAME, run=champion.run_id).outcome == "promoted"
    better = hemaml.run(plan_from({**document, "params": {"epochs": 1, "x": 0.9}}, None))
    sweep = {**stub_module.EXPERIMENT["sweep"], "trials": TRIALS, "confirm_seeds": 1}
    stub_module.on_step[:] = [interrupted_at(10)]
    with pytest.raises(KeyboardInterrupt):
        hemaml.sweep(plan_from({**stub_module.EXPERIMENT, "sweep": sweep}, stub_module.SPACE))
    sweep_id = hemaml.sweep_records()[0].tags["sweep"]
    known = set(trial_runs(sweep_id))
    busy = MlflowTracker(settings.tracking_uri(), "stub").start(
        "busy", {"kind": "run", "process": this_process()}
    )
    served()
    with pytest.raises(ConfigError, match="these runs go on: busy"):
        migrate()
    busy.end("KILLED")
    journal = workplace / "mlruns" / "optuna.journal"
    journal.rename(workplace / "journal")
    with pytest.raises(ConfigError, match="lacks 1 that sweeps name"):
        migrate()
    (workplace / "journal").rename(journal)
    done = command("migrate")
    assert done.returncode == 0, done.stderr
    assert "1 registered_models" in done.stdout and "1 studies" in done.stdout
    assert not [f for f in examine() if f.state == "wrong"]
    assert {f.state for f in examine_sweep(sweep_id)} == {"ok"}
    with sweep_of("native", sweep_id) as again:
        code, told = again.end()
    assert code == 0, told
    assert {f.state for f in examine_sweep(sweep_id)} == {"ok"}
    assert len(trial_runs(sweep_id)) == TRIALS and known < set(trial_runs(sweep_id))
    assert hemaml.report(sweep_id)
    promoted = hemaml.promote(NAME, run=better.run_id)
    assert promoted.outcome == "promoted" and promoted.champion.number == 1
    assert [e.outcome for e in hemaml.history(NAME)] == ["promoted", "promoted"]
    assert hemaml.rollback(NAME, reason="a new scanner").number == 1


def interrupted_at(number):
    calls = iter(range(1, number + 1))

    def step(epoch):
        if next(calls) == number:
            raise KeyboardInterrupt

    return step


def unplugged(*arguments):
    raise OSError("no power")


def digest(folder):
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock")
    }
