"""Seconds to move 500 runs into a server, and to back them up and restore them, on both sides.

    pytest tests/benchmarks/test_moving.py -s

Each run has 20 points of a curve, a score, parameters, tags and a file of its own. The bars, on two
cores: moving 120 s, a backup 60 s, a restoration 60 s.
"""

import time

import pytest
from full_store import fill
from servers import ADMIN, ADMIN_PASSWORD, MlflowServer, running_postgres

from hemaml.backup import backup
from hemaml.backup.restore import restore
from hemaml.migrate import migrate

NUM_RUNS = 500
BARS_S = {"move": 120, "backup": 60, "restore": 60}


def timed(what, call):
    began = time.perf_counter()
    call()
    seconds = time.perf_counter() - began
    print(f"{what:32} {seconds:6.1f} s (bar {BARS_S[what.split()[0].strip(',')]} s)")


@pytest.fixture
def server(tmp_path):
    with running_postgres("mlflow", "studies") as postgres:
        folder = tmp_path / "server"
        folder.mkdir()
        mlflow = MlflowServer(folder, postgres.url("mlflow"))
        try:
            mlflow.start()
            yield mlflow, postgres
        finally:
            mlflow.kill()


def test_moving_500_runs(stub, workplace, monkeypatch, server):
    store = workplace / "mlruns"
    fill(f"sqlite:///{store}/mlflow.db", str(store / "optuna.journal"), NUM_RUNS)
    print(f"\n{NUM_RUNS} runs with a file each")
    timed("backup, embedded", lambda: backup(workplace / "embedded"))
    (workplace / "other").mkdir()
    monkeypatch.chdir(workplace / "other")
    timed("restore, embedded", lambda: restore(workplace / "embedded"))
    mlflow, postgres = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
    monkeypatch.setenv("HEMAML_STUDY_STORAGE", postgres.url("studies"))
    monkeypatch.setenv("HEMAML_USERS_DATABASE", "none")
    timed("move into the server", lambda: migrate(store))
    timed("backup, served", lambda: backup(workplace / "served"))
    timed("restore, served, and a backup", lambda: restore(
        workplace / "served", replace=workplace / "before"
    ))  # fmt: skip
