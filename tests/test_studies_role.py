"""The role in PostgreSQL by which everybody sweeps: it owns the studies and opens nothing else."""

import importlib.util
from contextlib import contextmanager

import optuna
import psycopg
import pytest
from servers import running_postgres
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from stack import ROOT

SCRIPT = ROOT / "docker" / "entrypoints" / "studies.py"


@pytest.fixture(scope="module")
def make_role():
    spec = importlib.util.spec_from_file_location("studies_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_role


@pytest.fixture(scope="module")
def database():
    with running_postgres("mlflow", "mlflow_users", "studies") as database:
        yield database


def of_role(database, name, password):
    return database.url(name, password).replace("//hemaml:", "//studies:")


@contextmanager
def opened(url):
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    try:
        yield storage
    finally:
        storage.remove_session()


def test_the_role_takes_over_studies_of_a_time_before_it_and_opens_nothing_else(
    make_role, database
):
    with opened(database.url("studies")) as storage:
        study = optuna.create_study(storage=storage, study_name="old")
        study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
    for _ in range(2):  # a second start changes nothing
        make_role(database.url("studies"), "role's-secret")
    sought = of_role(database, "studies", "role's-secret")
    with opened(sought) as storage:
        study = optuna.load_study(study_name="old", storage=storage)
        study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
        assert len(study.trials) == 2
        optuna.delete_study(study_name="old", storage=storage)
    for name in ("mlflow", "mlflow_users"):
        address = of_role(database, name, "role's-secret").replace("+psycopg", "")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(address)
    with (
        psycopg.connect(sought.replace("+psycopg", "")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("select * from pg_authid")


def test_a_new_password_replaces_the_old_one(make_role, database):
    for password in ("the first", "the second"):
        make_role(database.url("studies"), password)
    with opened(of_role(database, "studies", "the second")):
        pass
    with (
        pytest.raises(OperationalError, match="password authentication failed"),
        opened(of_role(database, "studies", "the first")),
    ):
        pass
