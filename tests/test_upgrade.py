"""Stores whose tables are older than the installed packages: refused, backed up, upgraded."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic import command
from mlflow.store.db import utils
from servers import PASSWORD, running_postgres
from sqlalchemy.pool import NullPool

from hemaml.backup.restore import restore
from hemaml.core import settings
from hemaml.core.errors import StoreError
from hemaml.doctor import examine
from hemaml.engines.optuna_study import open_storage
from hemaml.tracking import schema
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import Registry
from hemaml.upgrade import upgrade

ENTRYPOINTS = Path(__file__).parents[1] / "docker" / "entrypoints"
OLD = schema.known_revisions()[8]


def engine_of(url):
    return sa.create_engine(url, poolclass=NullPool)


def build_old(url):
    """A record as MLflow of some versions ago made it, with a run."""
    engine = engine_of(url)
    utils.InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(engine.url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLD)
        tables = sa.MetaData()
        tables.reflect(connection)
        experiment = {"experiment_id": 1, "name": "stub", "lifecycle_stage": "active",
                      "artifact_location": "file:///nowhere"}  # fmt: skip
        run = {"run_uuid": "a" * 32, "name": "old", "user_id": "me", "experiment_id": 1,
               "status": "FINISHED", "lifecycle_stage": "active", "start_time": 1,
               "artifact_uri": f"file:///nowhere/{'a' * 32}/artifacts"}  # fmt: skip
        metric = {"run_uuid": "a" * 32, "key": "score", "value": 0.25, "timestamp": 1, "step": 0,
                  "is_nan": False}  # fmt: skip
        connection.execute(sa.insert(tables.tables["experiments"]), experiment)
        connection.execute(sa.insert(tables.tables["runs"]), run)
        connection.execute(sa.insert(tables.tables["metrics"]), metric)
        connection.execute(sa.insert(tables.tables["latest_metrics"]), metric)


def revision(url):
    return schema.revision(engine_of(url))


@pytest.fixture
def old_store(workplace):
    file = workplace / "mlruns" / "mlflow.db"
    file.unlink()
    build_old(f"sqlite:///{file}")
    return f"sqlite:///{file}"


def test_an_old_embedded_store_is_left_alone_until_it_has_a_backup(old_store, workplace):
    for use in (lambda: MlflowTracker(old_store, "stub"), lambda: Registry(old_store)):
        with pytest.raises(StoreError, match="hemaml upgrade"):
            use()
    found = {f.what: f for f in examine()}["tracking store"]
    assert found.state == "wrong" and "hemaml upgrade" in found.found
    assert revision(old_store) == OLD, "MLflow would have upgraded it on sight"
    done = subprocess.run(
        [sys.executable, "-m", "hemaml.cli", "upgrade"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    newest = schema.known_revisions()[0]
    assert f"record: tables of {OLD} are now of {newest}" in done.stdout
    run = MlflowTracker(old_store, "stub").get("a" * 32)
    assert run.name == "old" and run.metrics == {"score": 0.25}
    assert upgrade().backup is None
    kept = done.stdout.strip().splitlines()[-1].removeprefix("as they were: ")
    MlflowTracker(old_store, "stub")._client._tracking_client.store.engine.dispose()
    assert restore(kept, replace=workplace / "new").outdated
    assert revision(old_store) == OLD


def test_an_upgrade_that_fails_says_where_the_backup_is(old_store, monkeypatch):
    def broken(engine):
        raise sa.exc.OperationalError("alter", {}, OSError("no power"))

    monkeypatch.setattr(schema, "upgrade", broken)
    with pytest.raises(StoreError, match="no power.*hemaml restore") as told:
        upgrade("kept")
    assert str(Path("kept").resolve()) in str(told.value) and Path("kept/manifest.json").exists()


def test_tables_of_a_newer_mlflow_are_refused(old_store):
    with engine_of(old_store).begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = 'ffff'")
    for use in (lambda: MlflowTracker(old_store, "stub"), upgrade):
        with pytest.raises(StoreError, match="newer. Install the MLflow"):
            use()


@pytest.mark.slow
def test_old_databases_of_a_server_are_upgraded_while_nobody_uses_them(workplace, monkeypatch):
    with running_postgres("mlflow", "mlflow_users", "studies") as server:
        check_served(server, monkeypatch)


def check_served(server, monkeypatch):
    record, studies = server.url("mlflow"), server.url("studies")
    build_old(record)
    with closing_storage(studies) as storage:
        optuna.create_study(storage=storage, study_name="old").add_trial(
            optuna.trial.create_trial(value=0.5)
        )
        storage._version_manager._set_alembic_revision("v3.0.0.d")  # as an older one had it
    with pytest.raises(StoreError, match="hemaml upgrade") as told:
        open_storage(studies)
    assert PASSWORD not in str(told.value)
    guarded = subprocess.run(
        [sys.executable, "-W", "ignore", str(ENTRYPOINTS / "schema.py")],
        env={**os.environ, "MLFLOW_BACKEND_STORE_URI": record}, capture_output=True, text=True,
    )  # fmt: skip
    assert guarded.returncode == 1 and "hemaml upgrade" in guarded.stderr
    assert revision(record) == OLD
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # no server runs
    monkeypatch.setenv("HEMAML_STUDY_STORAGE", studies)
    with engine_of(record).connect(), pytest.raises(StoreError, match="1 others are connected"):
        upgrade()
    done = upgrade()
    assert set(done.changes) == {"record", "studies"} and done.backup.is_relative_to(
        settings.store_root()
    )
    assert revision(record) == schema.known_revisions()[0]
    with closing_storage(studies) as storage:
        assert optuna.load_study(study_name="old", storage=storage).best_value == 0.5
    allowed = subprocess.run(
        guarded.args, env={**os.environ, "MLFLOW_BACKEND_STORE_URI": record}, capture_output=True
    )
    assert allowed.returncode == 0


class closing_storage(closing):  # noqa: N801 - used like a function
    """Optuna's storage whose connections are closed at the end."""

    def __init__(self, url):
        super().__init__(optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool}))

    def __exit__(self, *told):
        self.thing.remove_session()
        self.thing.engine.dispose()
