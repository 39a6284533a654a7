"""What a cluster must have before a sweep may use it."""

import pytest

from hemaml.core.errors import ConfigError
from hemaml.engines import ray_cluster
from hemaml.engines.ray_cluster import check_shared

SERVERS = {
    "study_storage": "postgresql+psycopg://me:secret@db/studies",
    "tracking_uri": "http://mlflow:5000",
    "artifacts": "mlflow-artifacts:/1",
}


def nodes(*names):
    return [{"NodeManagerHostname": name, "NodeManagerAddress": f"10.0.0.{name}"} for name in names]


@pytest.mark.parametrize(
    ("name", "value", "start"),
    [
        ("tracking_uri", "sqlite:////w/mlruns/mlflow.db", "Start `mlflow server"),
        ("tracking_uri", "postgresql://me:secret@db/mlflow", "Start `mlflow server"),
        ("study_storage", "/w/mlruns/optuna.journal", "Start PostgreSQL"),
        ("study_storage", "sqlite:////w/studies.db", "Start PostgreSQL"),
        ("artifacts", "/w/mlruns/artifacts", "--artifacts-destination"),
        ("artifacts", "file:///w/mlruns/artifacts", "--artifacts-destination"),
    ],
)
def test_files_of_one_machine_are_refused_on_several_and_taken_on_one(name, value, start):
    stores = SERVERS | {name: value}
    check_shared(nodes("1", "1"), **stores)
    with pytest.raises(ConfigError, match=start) as refused:
        check_shared(nodes("1", "2"), **stores)
    assert value.rpartition("@")[2] in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("artifacts", ["mlflow-artifacts:/1", "s3://bucket/1"])
def test_servers_are_taken_on_several_machines(artifacts):
    check_shared(nodes("1", "2"), **SERVERS | {"artifacts": artifacts})


@pytest.mark.parametrize(
    ("address", "mode", "ok"),
    [("127.0.0.1", "", True), ("10.0.0.1", "token", True), ("10.0.0.1", "", False),
     ("10.0.0.1", "disabled", False)],
)  # fmt: skip
def test_a_cluster_on_a_network_must_ask_for_a_token(monkeypatch, address, mode, ok):
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    found = [{"NodeManagerAddress": address}]
    if ok:
        ray_cluster._check_token(found)
        return
    with pytest.raises(ConfigError, match="ray get-auth-token --generate"):
        ray_cluster._check_token(found)
