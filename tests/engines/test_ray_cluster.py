"""What a cluster must have before a sweep may use it."""

import pytest
import ray
from ray.exceptions import RayError

from hemaml.core.errors import ConfigError
from hemaml.core.sweep import Sweep
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
    ("address", "asks", "ok"),
    [("127.0.0.1", None, True), ("10.0.0.1", True, True), ("10.0.0.1", False, False),
     ("10.0.0.1", RayError("the node has died"), False)],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["token", "disabled", ""])
def test_a_cluster_on_a_network_must_ask_for_a_token_whatever_we_would_send(
    monkeypatch, address, asks, ok, mode
):
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr(ray_cluster, "on_each_node", lambda look: [("head 10.0.0.1", asks)])
    found = [{"NodeManagerAddress": address}]
    if ok:
        ray_cluster._check_token(found)
        return
    with pytest.raises(ConfigError, match="head 10.0.0.1 .*ray get-auth-token --generate"):
        ray_cluster._check_token(found)


def test_a_node_says_itself_that_it_asks_for_a_token(local_ray, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray_cluster._check_token([{"NodeManagerAddress": "10.0.0.1"}])


def test_a_connection_to_another_cluster_than_is_asked_for_is_refused(local_ray):
    here = ray.get_runtime_context().gcs_address
    port = here.rpartition(":")[2]
    for address in (None, "auto", here, f"localhost:{port}", "ray://elsewhere:10001"):
        with ray_cluster.connected(Sweep(address=address)) as nodes:
            assert len(nodes) == 1
    for address in ("127.0.0.1:1", f"elsewhere:{port}"):
        told = f"{here}.* but got '{address}'.* Leave it out"
        with (
            pytest.raises(ConfigError, match=told),
            ray_cluster.connected(Sweep(address=address)),
        ):
            raise AssertionError
