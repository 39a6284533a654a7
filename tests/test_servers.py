"""Sweeps of both engines on PostgreSQL and an MLflow server with users and an artifact proxy.

Real servers on loopback, which go away in the middle of a sweep and come back. After each: no
finished trial lost, none twice, no run RUNNING, and study and record agree.
"""

import os
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from server_sweep import GATED, TRIALS
from servers import ADMIN, ADMIN_PASSWORD, MlflowServer, running_postgres
from sweeping import sweep_of

from hemaml import access
from hemaml.core.errors import ConfigError
from hemaml.core.search import Study
from hemaml.doctor import examine_sweep
from hemaml.engines.optuna_engine import searched
from hemaml.record import find_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker

AWAY_S = 3
"""Less than a server needs to start again, and more than a sweep needs to notice."""
LONG_S = 30
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres():
    with running_postgres("mlflow", "studies") as server:
        yield server


@pytest.fixture(scope="module")
def mlflow(postgres, tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"), postgres.url("mlflow"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def stores(stub, postgres, mlflow, monkeypatch):
    """The servers, both there, in the environment of this process and of what it starts."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
    monkeypatch.setenv("HEMAML_STUDY_STORAGE", postgres.url("studies"))
    return postgres, mlflow


@contextmanager
def away(server):
    server.kill()
    try:
        yield
    finally:
        server.start()


def check_nothing_is_lost(sweep_id, folder):
    findings = examine_sweep(sweep_id)
    assert {found.state for found in findings} == {"ok"}, findings
    parent = find_sweep(sweep_id)
    study = Study(parent.tags["study"], os.environ["HEMAML_STUDY_STORAGE"], ("maximize",))
    assert [t.ending for t in searched(study)] == ["finished"] * TRIALS
    tracker = MlflowTracker(os.environ["MLFLOW_TRACKING_URI"], "stub")
    below = tracker.find({}, parent=parent.id)
    assert {run.status for run in (parent, *below)} == {"FINISHED"}
    trials = Counter(run.tags["trial"] for run in below if run.tags["kind"] == "trial")
    assert trials == Counter(str(number) for number in range(TRIALS))
    assert tracker.artifact_location.startswith("mlflow-artifacts:/"), "through the server"
    assert (tracker.download(parent.id, "split.json", folder)).stat().st_size


def test_sweeps_of_both_engines_outlast_an_outage_of_each_server(stores, tmp_path, monkeypatch):
    postgres, mlflow = stores
    monkeypatch.setenv("GATES", str(tmp_path))
    with sweep_of("ray") as on_ray, sweep_of("native") as native:
        sweeps = [on_ray, native]
        ids = [sweep.read_until("sweep").split()[1] for sweep in sweeps]
        outages = (mlflow, LONG_S), (postgres, AWAY_S)
        for trial, (server, seconds) in zip(GATED, outages, strict=True):
            for sweep in sweeps:
                sweep.read_until(f"started {trial}")
            with away(server):
                (tmp_path / str(trial)).touch()
                time.sleep(seconds)
        for sweep in sweeps:
            code, told = sweep.end()
            assert code == 0, told
    for sweep_id in ids:
        check_nothing_is_lost(sweep_id, tmp_path)


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "mlflow"])
def test_an_outage_beyond_the_wait_ends_the_sweep_which_then_goes_on(
    stores, which, tmp_path, monkeypatch
):
    server = stores[which]
    monkeypatch.setenv("HEMAML_STORE_WAIT", "1")
    with sweep_of("native") as sweep:
        sweep_id = sweep.read_until("sweep").split()[1]
        sweep.read_until("ended", times=2)
        with away(server):
            code, told = sweep.end()
    assert code == 1 and "must take reads and writes" in told, told
    assert f"127.0.0.1:{server.port}" in told and "--resume" in told
    with sweep_of("native", sweep_id) as again:
        code, told = again.end()
    assert code == 0, told
    check_nothing_is_lost(sweep_id, tmp_path)


def test_a_wrong_password_is_told_before_anything_is_recorded(stores, monkeypatch):
    postgres, _ = stores
    before = len(MlflowTracker(os.environ["MLFLOW_TRACKING_URI"], "stub").find({}))
    for name, value in (
        ("HEMAML_STUDY_STORAGE", postgres.url("studies", "not-the-password")),
        ("MLFLOW_TRACKING_PASSWORD", "not-the-password"),
    ):
        with monkeypatch.context() as wrong:
            wrong.setenv(name, value)
            with sweep_of("native") as sweep:
                code, told = sweep.end()
        assert code == 1 and told.strip().startswith("error: "), told
        assert "not-the-password" not in told
    assert len(MlflowTracker(os.environ["MLFLOW_TRACKING_URI"], "stub").find({})) == before


def test_no_role_is_given_where_the_server_would_not_keep_it(stores):
    with pytest.raises(ConfigError, match="Start it with .*--enable-workspaces"):
        access.add_user("tom", "the-password-of-tom", "trainer")
    assert [user.name for user in access.users()] == [ADMIN]
